"""Ratings of segments by a pretrained encoder, at every frame."""

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from numpy import ndarray

from affect import timeline
from affect.storage import schema
from affect.storage.columns import array, matrix


def ratings_per_frame(
    table: pa.Table, ranges: Int[ndarray, "segments 2"], num_frames: int, width: int
) -> Float[ndarray, "frames K"]:
    """Mean rating over the rated segments that cover a frame, NaN at frames without one.

    Args:
        table: rows of segments, at most one for each; without the column of ratings, none is rated.
        ranges: frames ``[f0, f1)`` of each segment, within the track.
        num_frames: frames of the track.
        width: K, number of ratings.
    """
    parts = []
    if schema.RATING.name in table.column_names:
        rated = table.filter(table[schema.RATING.name].is_valid())
        values = matrix(rated[schema.RATING.name], width)
        for segment, value in zip(array(rated["segment"]), values, strict=True):
            first, end = ranges[segment]
            if end > first:
                parts.append((int(first), np.tile(value.astype(np.float64), (end - first, 1))))
    mean, covered = timeline.overlap_mean(num_frames, parts, width)
    return np.where(covered[:, None], mean, np.nan)
