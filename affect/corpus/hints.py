"""Hints: points given by hand that say which face belongs to which track, for videos where appearance is not enough.

Files are read line by line and not by pyarrow.csv, whose errors have no line numbers.
"""

import csv
import io
from collections.abc import Mapping, Sequence

from affect.storage import files

HEADER = ["track", "frame", "x", "y"]

Points = Sequence[tuple[int, float, float]]
"""Points ``(frame, x, y)``: frame from 0, x and y as shares of the picture's width and height."""


def parse(text: str, name: str) -> Mapping[str, Points]:
    """Parses a hint file: the header ``track,frame,x,y``, then one point per line.

    The points of a track lie on the person of that track. One point is enough; among several, the majority decides.

    Args:
        text: content of the file.
        name: path of the file, for messages.

    Returns:
        Points by track.

    Raises:
        ValueError: the header or a line is wrong; the message has the line.
    """
    try:
        lines = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"))))  # byte order mark, which Excel writes
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
            raise ValueError(f"{name} line {number}: the track's name is empty")
        points.setdefault(track, []).append(point)
    return points


def read(uri: str | None) -> Mapping[str, Points]:
    """Reads a hint file; without a path there are no points.

    Raises:
        ValueError: the file is not text, or a line is wrong.
    """
    return parse(files.read_text(uri), uri) if uri else {}
