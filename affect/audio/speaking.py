"""Which segments' sound is the visible person's voice: those in which the visible mouth speaks.

Pure functions over arrays of one track. A mouth table of one's own needs nothing else::

    from affect.audio.speaking import judge_table
    for segment in judge_table(frame, area, fps=25.0):
        print(segment.start_s, segment.end_s, segment.verdict)

Source: paper, section 3.4.
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
"""Why a frame has no audio evidence, in the order in which a later one of two overlapping segments' holds."""
# A mouth that never moves, or a track of just 30 rows, is at its mean: not above it by a rounding error.
_TIE = 1e-9


def level_dbfs(wave: Int16[ndarray, " samples"]) -> float:
    """Level of a waveform: ``20 log10(rms(x - mean(x)) / 32768)``, -inf of a constant; a full-scale sine is at -3.

    Args:
        wave: one sample or more.
    """
    rms = wave.astype(np.float64).std()
    return float(20 * np.log10(rms / FULL_SCALE)) if rms else -np.inf


def unheard(wave: Int16[ndarray, " samples"], settings: Speaking) -> str:
    """Why nobody can be heard in a segment, whatever the mouth does: there is no sound, or silence; else empty."""
    if not len(wave):
        return NO_SOUND
    level = level_dbfs(wave)
    return f"{SILENCE}, {level:.0f} dBFS" if level < settings.min_level_dbfs else ""


def frame_reasons(ranges: Int[ndarray, "segments 2"], verdicts: Sequence[str], num_frames: int) -> list[str]:
    """Why a frame has no audio evidence: of the segments that cover it, the reason that is nearest to being heard.

    Args:
        ranges: frames ``[f0, f1)`` of each segment.
        verdicts: why each was not kept.
        num_frames: frames of the track.

    Returns:
        :data:`NO_SOUND`, :data:`SILENCE` or :data:`NOT_SPEAKING` for each frame; of a frame that is heard it says
        nothing.
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


def with_sound(verdict: Verdict, why: str) -> Verdict:
    """A verdict on a mouth, with what :func:`unheard` says of the sound."""
    return verdict._replace(kept=False, reason=why) if why else verdict


class JudgedSegment(NamedTuple):
    """A row of the segment table that a mouth table gives.

    Args:
        start_s: start.
        end_s: end.
        first_frame: f0.
        end_frame: f1, the frame that it ends before.
        verdict: what the filter says.
    """

    start_s: float
    end_s: float
    first_frame: int
    end_frame: int
    verdict: Verdict


def mouth_open(
    lip_area: Float[ndarray, " frames"], settings: Speaking, everyone: Float[ndarray, " rows"] | None = None
) -> Bool[ndarray, " frames"]:
    """Whether the mouth is open at each frame of a track.

    ``open_t = 1`` iff the mean area of the last 30 mesh rows (a full 30, else 0) exceeds the track's mean area, or,
    with ``relative_to = "video"``, the mean area of everyone in the video. A frame without a mesh (NaN) counts as
    closed and is no row.

    Args:
        lip_area: inner-lip area per frame, NaN without a mesh.
        settings: the number of rows, and whose mean.
        everyone: inner-lip areas of all persons of the video in any order, NaN without a mesh; the track alone if not
            given.

    Differs: the paper's mean is always the track's, so that a listener's still mouth is open half of the time.
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
    """Judge every segment of a track.

    Keep iff ``open_s >= 1.0`` and ``coverage >= .8``, with ``open_s`` = open frames / fps and coverage = frames with a
    mesh / frames.

    Args:
        lip_area: inner-lip area per frame, NaN without a mesh.
        fps: mean frames per second.
        ranges: frames ``[f0, f1)`` of each segment.
        settings: the rule.
        everyone: as in :func:`mouth_open`.
        frame_shift: frames that the mesh table lies late: a segment reads the frames ``[f0 - shift, f1 - shift)``.
            The published tables put 1-based frame k at 0-based index k, which is 1. What lies outside of the track is
            closed and without a mesh.

    Differs: the authors' code applies the verdict in training only; here it holds in every split.
    """
    seen = ~np.isnan(lip_area)
    is_open = smooth(mouth_open(lip_area, settings, everyone), fps, settings)
    result = []
    for first, end in ranges:
        frames, read = max(1, int(end - first)), slice(*np.clip([first - frame_shift, end - frame_shift], 0, len(seen)))
        open_s, coverage = float(is_open[read].sum() / fps), float(seen[read].sum() / frames)
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
    """Judge every segment of a track from a table of its mouth, as published tables have it.

    Args:
        frame: 0-based numbers of the frames with a mesh, in any order; a gap is a frame without a mesh.
        lip_area: inner-lip area at each of them; NaN is a frame without a mesh, too.
        fps: frames per second, constant; segments begin at ``round(t fps)``.
        num_frames: frames of the video; up to the last one of the table if not given.
        settings: the rule; the published one if not given, or, with ``everyone``, relative to the video.
        grid: length and hop of segments; four and two seconds if not given.
        everyone: inner-lip areas of all persons of the video, this one's among them, in any order.
        frame_shift: as in :func:`verdicts`.

    Returns:
        One row per segment, in order.

    Raises:
        ValueError: columns are no columns or differ in length, a frame is no whole number, negative, twice there or
            past the video's end, an area is negative or infinite, the rate is not positive, or the video has no frame.
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
    found, counts = np.unique(numbers.astype(np.int64), return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"the mouth table has frame {found[counts > 1][0]} more than once")
    if len(found) and (found[0] < 0 or found[-1] >= num):
        raise ValueError(f"the mouth table has frames {found[0]} to {found[-1]}, the video {num} frames")
    track = np.full(num, np.nan)
    track[numbers.astype(np.int64)] = areas
    grid, rule = grid or Grid(), settings or Speaking(relative_to="track" if others is None else "video")
    ranges_s = timeline.segments(num / fps, grid.segment_s, grid.hop_s)
    ranges = timeline.frame_ranges(timeline.ConstantRate(num, fps), ranges_s)
    said = verdicts(track, fps, ranges, rule, everyone=others, frame_shift=frame_shift)
    each = zip(ranges_s, ranges.tolist(), said, strict=True)
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
