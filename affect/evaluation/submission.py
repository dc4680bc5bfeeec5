"""The challenge's text format: reads a template of rows and fills in predictions.

image_location,valence,arousal
<track>/00001.jpg,0.123456,-0.654321          frame 1 is the track's first
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

HEADER = "image_location,valence,arousal"
MAX_MISSING_FRAMES = 2
"""Maximum frames that a template may have past a video's end; Aff-Wild2's containers lack up to two."""


class Row(NamedTuple):
    """One row of a template.

    Args:
        location: location as in the template.
        track: name of the track.
        frame: 0-based frame.
    """

    location: str
    track: str
    frame: int


class SubmissionError(ValueError):
    """A template cannot be read or filled; the message names the row."""


def read_template(text: str, name: str) -> list[Row]:
    """Rows of a template, in order.

    Args:
        text: content of the file.
        name: its path, for messages.

    Raises:
        SubmissionError: wrong header, or a row that does not name a frame.
    """
    header, *lines = text.lstrip("\ufeff").replace("\r\n", "\n").rstrip("\n").split("\n")
    if header.strip() != HEADER:
        raise SubmissionError(f'{name}: the first line is "{header[:60]}", it has to be "{HEADER}"')
    if not lines:
        raise SubmissionError(f"{name}: it names no frame")
    rows = []
    for number, line in enumerate(lines, start=2):
        location = line.split(",")[0].strip()
        track, _, image = location.rpartition("/")
        frame = image.removesuffix(".jpg")
        if not track or not frame.isdecimal() or len(frame) > 9 or int(frame) < 1:
            raise SubmissionError(f'{name}: line {number} is "{line[:60]}", it has to begin with <track>/00001.jpg')
        rows.append(Row(location, track, int(frame) - 1))
    return rows


def tracks_of(rows: list[Row]) -> list[str]:
    """Names of the tracks, in order of appearance."""
    return list(dict.fromkeys(row.track for row in rows))


def fill(rows: list[Row], predictions: Mapping[str, Float[ndarray, "frames 2"]]) -> str:
    """Text of the submission: the template's rows in their order, with predictions clipped to [-1, 1].

    Args:
        rows: rows of the template.
        predictions: valence and arousal of every frame, by track; the caller fills in missing predictions.

    Raises:
        SubmissionError: a row has no prediction.
    """
    lines = [HEADER]
    for row in rows:
        if row.track not in predictions:
            raise SubmissionError(
                f"{row.location}: no prediction for track {row.track}; is its video among the predicted?"
            )
        values = predictions[row.track]
        frame = min(row.frame, len(values) - 1)
        if row.frame - frame > MAX_MISSING_FRAMES or not len(values) or not np.isfinite(values[frame]).all():
            raise SubmissionError(
                f"{row.location}: no prediction, track {row.track} has {len(values)} predicted frames"
            )
        valence, arousal = np.clip(values[frame], -1, 1)
        lines.append(f"{row.location},{valence:.6f},{arousal:.6f}")
    return "\n".join(lines) + "\n"
