"""Hints of who is who: points on people, given by someone who looked, where looks and places do not tell.

Read line by line, not by pyarrow.csv: its errors name no line.
"""

import csv
import io
from collections.abc import Mapping, Sequence

from affect.storage import files

HEADER = ["track", "frame", "x", "y"]

Points = Sequence[tuple[int, float, float]]
"""Frame from 0, and x and y as shares of the picture's width and height."""


def parse(text: str, name: str) -> Mapping[str, Points]:
    """Read a hint file: a header ``track,frame,x,y``, then one point a line.

    A track's points lie on the person that it means; one is enough, more outvote a wrong one.

    Args:
        text: content.
        name: of the file, for errors.

    Returns:
        Points by track.

    Raises:
        ValueError: names the line that is no point.
    """
    try:
        lines = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"))))  # the mark that Excel begins a file with
    except csv.Error as error:
        raise ValueError(f"{name} is no CSV: {error}") from None
    if not lines or [cell.strip() for cell in lines[0]] != HEADER:
        raise ValueError(f"{name}: its first line has to be {','.join(HEADER)}")
    points: dict[str, list[tuple[int, float, float]]] = {}
    for number, cells in enumerate(lines[1:], start=2):
        if not cells:
            continue
        try:
            track, frame, x, y = (cell.strip() for cell in cells)
            point = (int(frame), float(x), float(y))
        except ValueError:
            raise ValueError(f"{name} line {number}: {','.join(cells)!r} is no track, frame, x and y") from None
        if point[0] < 0 or not (0 <= point[1] <= 1 and 0 <= point[2] <= 1):
            raise ValueError(f"{name} line {number}: frames count from 0, x and y are shares in [0, 1]")
        if not track:
            raise ValueError(f"{name} line {number}: its track has no name")
        points.setdefault(track, []).append(point)
    return points


def read(uri: str | None) -> Mapping[str, Points]:
    """Read a hint file, if one is named.

    Raises:
        ValueError: it is no text, or names no points.
    """
    return parse(files.read_text(uri), uri) if uri else {}
