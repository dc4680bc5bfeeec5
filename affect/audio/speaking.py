"""Audio reliability filter: keeps the segments in which the visible mouth speaks.

Pure functions over arrays of one track. They also run on a mouth table from elsewhere::

    from affect.audio.speaking import judge_table
    for segment in judge_table(frame, area, fps=25.0):
        print(segment.start_s, segment.end_s, segment.verdict)

Source: paper (arXiv 2603.13056), section 3.4; spec sections 5.2 and 5.3.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int16
from numpy import ndarray
from numpy.typing import ArrayLike

from affect import timeline
from affect.corpus.track import FULL_SCALE
from affect.settings.extraction import Grid
from affect.settings.models import Speaking

NO_SOUND, SILENCE, NOT_SPEAKING = "no sound", "silence", "the mouth is not seen to speak"
"""Reasons why a frame has no valid audio; of two overlapping segments' reasons, the later one in this list holds."""
# The mean over 30 rows of a still mouth equals the track's mean: a rounding error must not make it larger.
_TIE = 1e-9


def level_dbfs(wave: Int16[ndarray, " samples"]) -> float:
    """Computes the level of a waveform; -inf if it is constant. A full-scale sine is at -3 dBFS.

        level = 20 log10(rms(x - mean x) / 32768)

    Args:
        wave: one sample or more.
    """
    rms = wave.astype(np.float64).std()
    return float(20 * np.log10(rms / FULL_SCALE)) if rms else -np.inf


def silence_reason(wave: Int16[ndarray, " samples"], settings: Speaking) -> str:
    """Reason why a segment has no usable sound, whatever the mouth does: no samples, or silence; else empty."""
    if not len(wave):
        return NO_SOUND
    level = level_dbfs(wave)
    return f"{SILENCE}, {level:.0f} dBFS" if level < settings.min_level_dbfs else ""


def frame_reasons(ranges: Int[ndarray, "segments 2"], verdicts: Sequence[str], num_frames: int) -> list[str]:
    """Reason of each frame without valid audio; of the covering segments' reasons, the last in the order below.

    Args:
        ranges: frames ``[f0, f1)`` of each segment.
        verdicts: reason why each segment was rejected; empty if kept.
        num_frames: frames of the track.

    Returns:
        :data:`NO_SOUND`, :data:`SILENCE` or :data:`NOT_SPEAKING` per frame; to be ignored at frames with valid audio.
    """
    reasons = np.full(num_frames, NO_SOUND, dtype=object)
    for reason in (SILENCE, NOT_SPEAKING):
        for (first, end), verdict in zip(ranges, verdicts, strict=True):
            if verdict and _reason(verdict) == reason:
                reasons[first:end] = reason
    return reasons.tolist()


def _reason(verdict: str) -> str:
    return next((reason for reason in (NO_SOUND, SILENCE) if verdict.startswith(reason)), NOT_SPEAKING)


class Verdict(NamedTuple):
    """Result of the filter for one segment.

    Args:
        kept: true if audio trains on the segment and the fusions use it.
        reason: why it is rejected; empty if kept.
        open_s: seconds with an open mouth.
        coverage: share of frames with a mesh, in [0, 1].
    """

    kept: bool
    reason: str
    open_s: float
    coverage: float


def with_silence_reason(verdict: Verdict, reason: str) -> Verdict:
    """Rejects a segment if :func:`silence_reason` gives a reason; else returns the verdict unchanged."""
    return verdict._replace(kept=False, reason=reason) if reason else verdict


class JudgedSegment(NamedTuple):
    """One segment of a mouth table, with its verdict.

    Args:
        start_s: start in seconds.
        end_s: end in seconds.
        first_frame: f0, first frame.
        end_frame: f1, frame after the last.
        verdict: result of the filter.
    """

    start_s: float
    end_s: float
    first_frame: int
    end_frame: int
    verdict: Verdict


def mouth_open(
    lip_area: Float[ndarray, " frames"], settings: Speaking, everyone: Float[ndarray, " rows"] | None = None
) -> Bool[ndarray, " frames"]:
    """Decides at which frames of a track the mouth is open.

        open_t = 1 iff mean of A over the last n rows up to t > mean A

    where A is the inner-lip area at frames with a mesh (rows), n = 30, and mean A runs over the track, or over everyone
    in the video with ``relative_to = "video"``. The mouth counts as closed before n rows and at frames without a mesh.

    Args:
        lip_area: inner-lip area per frame, NaN without a mesh.
        settings: n, and whose mean.
        everyone: inner-lip areas of all people of the video in any order, NaN without a mesh; None for the track alone.

    Source: paper (arXiv 2603.13056), section 3.4; spec section 5.2.
    Differs: the paper's mean is always the track's, by which a listener's still mouth is open half of the time.
    """
    rows = np.flatnonzero(~np.isnan(lip_area))
    is_open = np.zeros(len(lip_area), dtype=bool)
    n = settings.history_rows
    if len(rows) < n:
        return is_open
    area = lip_area[rows].astype(np.float64)
    total = np.concatenate([[0.0], np.cumsum(area)])
    recent = (total[n:] - total[:-n]) / n
    if everyone is not None and settings.relative_to == "video":
        area = np.concatenate([area[:0], everyone[~np.isnan(everyone)]])
    if len(area):
        is_open[rows[n - 1 :]] = recent > area.mean() + _TIE
    return is_open


def smooth(is_open: Bool[ndarray, " frames"], fps: float, settings: Speaking) -> Bool[ndarray, " frames"]:
    """Fills short closed runs between open frames, then deletes short open runs.

    Both limits are ``max(1, round(seconds * fps))`` frames, rounded half to even.

    Args:
        is_open: from :func:`mouth_open`.
        fps: mean frames per second.
        settings: the two durations.

    Source: spec section 5.3.
    """
    gap = max(1, round(settings.bridge_s * fps))
    shortest = max(1, round(settings.min_open_run_s * fps))
    filled = is_open.copy()
    for start, end, value in timeline.runs(is_open):
        if not value and end - start <= gap and start > 0 and end < len(is_open):
            filled[start:end] = True
    result = filled.copy()
    for start, end, value in timeline.runs(filled):
        if value and end - start <= shortest:
            result[start:end] = False
    return result


def verdicts(
    lip_area: Float[ndarray, " frames"],
    fps: float,
    ranges: Int[ndarray, "segments 2"],
    settings: Speaking,
    *,
    everyone: Float[ndarray, " rows"] | None = None,
    frame_shift: int = 0,
) -> list[Verdict]:
    """Filters the segments of a track.

        open_s = open frames / fps;   coverage = frames with a mesh / frames
        kept iff open_s >= 1.0 and coverage >= .8

    Args:
        lip_area: inner-lip area per frame, NaN without a mesh.
        fps: mean frames per second.
        ranges: frames ``[f0, f1)`` of each segment.
        settings: thresholds.
        everyone: as in :func:`mouth_open`.
        frame_shift: delay of the mesh table in frames: a segment reads the frames ``[f0 - shift, f1 - shift)``. It is 1
            for the published tables, which have 1-based frame k at 0-based index k. Frames outside of the track count
            as closed and without a mesh.

    Source: paper (arXiv 2603.13056), section 3.4; spec section 5.3.
    Differs: the authors' code applies the verdicts in training only; here they apply in every split.
    """
    meshed = ~np.isnan(lip_area)
    is_open = smooth(mouth_open(lip_area, settings, everyone), fps, settings)
    result = []
    for first, end in ranges:
        num_frames = max(1, int(end - first))
        part = slice(*np.clip([first - frame_shift, end - frame_shift], 0, len(meshed)))
        open_s, coverage = float(is_open[part].sum() / fps), float(meshed[part].sum() / num_frames)
        reasons = []
        if coverage < settings.min_coverage:
            reasons.append(f"mouth seen in {coverage:.0%} of the frames")
        if open_s < settings.min_open_s:
            reasons.append(f"mouth open for {open_s:.2f} s")
        result.append(Verdict(not reasons, ", ".join(reasons), open_s, coverage))
    return result


def judge_table(
    frame: ArrayLike,
    lip_area: ArrayLike,
    fps: float,
    *,
    num_frames: int | None = None,
    settings: Speaking | None = None,
    grid: Grid | None = None,
    everyone: ArrayLike | None = None,
    frame_shift: int = 0,
) -> list[JudgedSegment]:
    """Filters the segments of a track given as a table of mouth areas, the form of the published tables.

    Args:
        frame: 0-based frame numbers in any order; frames not in the table have no mesh.
        lip_area: inner-lip area at each frame; NaN without a mesh.
        fps: constant frames per second; segments begin at ``round(t fps)``.
        num_frames: frames of the video; None for the table's last frame + 1.
        settings: thresholds; by default the published ones, relative to the video if ``everyone`` is given.
        grid: length and hop of segments; by default 4 s and 2 s.
        everyone: inner-lip areas of all people of the video in any order, this track's included.
        frame_shift: as in :func:`verdicts`.

    Returns:
        One row per segment, in order.

    Raises:
        ValueError: columns are not one-dimensional or differ in length; a frame is not a whole number, negative,
            repeated or past the video's end; an area is negative or infinite; fps is not positive; there is no frame.
    """
    numbers, areas = _column("frame", frame), _column("area", lip_area)
    others = None if everyone is None else _column("area", everyone)
    if len(numbers) != len(areas):
        raise ValueError(f"the mouth table has {len(numbers)} frames and {len(areas)} areas")
    if not 0 < fps < np.inf:
        raise ValueError(f"fps is {fps}, it has to be positive")
    if (numbers != np.floor(numbers)).any():
        raise ValueError("the mouth table has a frame that is no whole number")
    num = (int(numbers.max()) + 1 if len(numbers) else 0) if num_frames is None else int(num_frames)
    if num < 1:
        raise ValueError("the video has no frame")
    unique, counts = np.unique(numbers.astype(np.int64), return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"the mouth table has frame {unique[counts > 1][0]} more than once")
    if len(unique) and (unique[0] < 0 or unique[-1] >= num):
        raise ValueError(f"the mouth table has frames {unique[0]} to {unique[-1]}, the video {num} frames")
    track = np.full(num, np.nan)
    track[numbers.astype(np.int64)] = areas
    grid, settings = grid or Grid(), settings or Speaking(relative_to="track" if others is None else "video")
    ranges_s = timeline.segments(num / fps, grid.segment_s, grid.hop_s)
    ranges = timeline.frame_ranges(timeline.ConstantRate(num, fps), ranges_s)
    judged = verdicts(track, fps, ranges, settings, everyone=others, frame_shift=frame_shift)
    each = zip(ranges_s, ranges.tolist(), judged, strict=True)
    return [JudgedSegment(start_s, end_s, first, end, verdict) for (start_s, end_s), (first, end), verdict in each]


def _column(name: str, values: ArrayLike) -> Float[ndarray, " rows"]:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1:
        raise ValueError(f"the mouth table's {name} is no column: it has {column.ndim} axes")
    if name == "frame" and not np.isfinite(column).all():
        raise ValueError("the mouth table has a frame that is no whole number")
    if name == "area" and ((column < 0).any() or np.isinf(column).any()):
        raise ValueError("the mouth table has an area that is negative or infinite")
    return column
