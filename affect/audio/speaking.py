"""Which segments' sound is the visible person's voice: those in which the visible mouth speaks.

Pure functions over arrays of one track.

Source: paper, section 3.4.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from affect.config import Speaking
from affect.timeline import runs

# A mouth that never moves, or a track of just 30 rows, is at its mean: not above it by a rounding error.
_TIE = 1e-9


class Verdict(NamedTuple):
    """What the filter says of one segment.

    Args:
        kept: whether fusion may listen and audio trains on it.
        reason: why not, empty if kept.
        open_s: seconds of open mouth.
        coverage: share of frames with a mesh.
    """

    kept: bool
    reason: str
    open_s: float
    coverage: float


def mouth_open(lip_area: Float[ndarray, " frames"], settings: Speaking) -> Bool[ndarray, " frames"]:
    """Whether the mouth is open at each frame of a track.

    ``open_t = 1`` iff the mean area of the last 30 mesh rows (a full 30, else 0) exceeds the track's mean area. A
    frame without a mesh (NaN) counts as closed and is no row.

    Args:
        lip_area: inner-lip area per frame, NaN without a mesh.
        settings: the number of rows.
    """
    rows = np.flatnonzero(~np.isnan(lip_area))
    is_open = np.zeros(len(lip_area), dtype=bool)
    n = settings.history_rows
    if len(rows) < n:
        return is_open
    area = lip_area[rows].astype(np.float64)
    total = np.concatenate([[0.0], np.cumsum(area)])
    recent = (total[n:] - total[:-n]) / n
    is_open[rows[n - 1 :]] = recent > area.mean() + _TIE
    return is_open


def smooth(is_open: Bool[ndarray, " frames"], fps: float, settings: Speaking) -> Bool[ndarray, " frames"]:
    """Fill short closed runs between open frames, then delete short open runs.

    Run lengths are ``max(1, round(seconds * fps))`` frames, half to even.

    Args:
        is_open: from :func:`mouth_open`.
        fps: mean frames per second.
        settings: the two durations.
    """
    gap = max(1, round(settings.bridge_s * fps))
    shortest = max(1, round(settings.min_open_run_s * fps))
    filled = is_open.copy()
    for start, end, value in runs(is_open):
        if not value and end - start <= gap and start > 0 and end < len(is_open):
            filled[start:end] = True
    result = filled.copy()
    for start, end, value in runs(filled):
        if value and end - start <= shortest:
            result[start:end] = False
    return result


def verdicts(
    lip_area: Float[ndarray, " frames"],
    fps: float,
    ranges: Int[ndarray, "segments 2"],
    settings: Speaking,
    *,
    frame_shift: int = 0,
) -> list[Verdict]:
    """Judge every segment of a track.

    Keep iff ``open_s >= 1.0`` and ``coverage >= .8``, with ``open_s`` = open frames / fps and coverage = frames with a
    mesh / frames.

    Args:
        lip_area: inner-lip area per frame, NaN without a mesh.
        fps: mean frames per second.
        ranges: frames ``[f0, f1)`` of each segment.
        settings: the rule.
        frame_shift: frames that the mesh is looked up late; the published tables have 1.

    Differs: the authors' code applies the verdict in training only; here it holds in every split.
    """
    seen = ~np.isnan(lip_area)
    is_open = smooth(mouth_open(lip_area, settings), fps, settings)
    result = []
    for first, end in ranges + frame_shift:
        frames = max(1, int(end - first))
        open_s, coverage = float(is_open[first:end].sum() / fps), float(seen[first:end].sum() / frames)
        reasons = []
        if coverage < settings.min_coverage:
            reasons.append(f"mouth seen in {coverage:.0%} of the frames")
        if open_s < settings.min_open_s:
            reasons.append(f"mouth open for {open_s:.2f} s")
        result.append(Verdict(not reasons, ", ".join(reasons), open_s, coverage))
    return result
