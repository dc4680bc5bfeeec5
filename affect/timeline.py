"""All window arithmetic: segments, frames of a time range, windows, overlap mean, blocks, nearest fill, smoothing.

Times are seconds from the video's first frame, frames are 0-based, ranges are half open. Arrays are numpy.

Source: paper (arXiv 2603.13056), sections 3.2 to 3.4; spec, section 2.
Differs: behaviour and audio share one grid of segments.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

# Durations are sums of many float intervals: times closer than this count as equal.
TIME_TOLERANCE_S = 1e-6


def segments(duration_s: float, segment_s: float = 4.0, hop_s: float = 2.0) -> list[tuple[float, float]]:
    """Cuts a duration into overlapping segments; the last one may be shorter (a tail).

    Args:
        duration_s: length of the video in seconds, > 0.
        segment_s: length of a segment in seconds.
        hop_s: seconds between starts, at most ``segment_s``.

    Returns:
        ``(start_s, end_s)`` per segment, in order; together they cover ``[0, duration_s]``.

    Raises:
        ValueError: the duration is not positive.
    """
    if not duration_s > 0:
        raise ValueError(f"a video of {duration_s} s has no segments")
    ranges = []
    start = 0.0
    while start + segment_s < duration_s - TIME_TOLERANCE_S:
        ranges.append((start, start + segment_s))
        start = len(ranges) * hop_s
    ranges.append((start, duration_s))
    return ranges


@runtime_checkable
class FrameClock(Protocol):
    """Maps times to frames."""

    @property
    def num_frames(self) -> int:
        """Frames of the video."""

    @property
    def fps(self) -> float:
        """Mean frames per second."""

    def frames_before(self, time_s: float) -> int:
        """F(t): number of frames before a time."""

    def block_edges(self, start_s: float, num_blocks: int) -> Int[ndarray, " edges"]:
        """Frame edges of consecutive one-second blocks from ``start_s`` on."""


@dataclass(frozen=True)
class Timestamps:
    """Frame clock from presentation timestamps, for constant and variable frame rates.

    ``F(t) = #{i : time_i + 1 / (2 fps) < t}``. The duration is the last timestamp plus one mean interval, and
    ``fps = frames / duration``.

    Args:
        time_s: timestamp of each frame, at least one, strictly increasing from 0.
    """

    time_s: Float[ndarray, " frames"]

    @property
    def num_frames(self) -> int:
        """Frames of the video."""
        return len(self.time_s)

    @property
    def duration_s(self) -> float:
        """Last timestamp plus one mean interval; a video of one frame lasts 1/25 s."""
        if len(self.time_s) == 1:
            return 0.04
        last = float(self.time_s[-1])
        return last + last / (len(self.time_s) - 1)

    @property
    def fps(self) -> float:
        """Mean frames per second."""
        return self.num_frames / self.duration_s

    @cached_property
    def _centres_s(self) -> Float[ndarray, " frames"]:
        return self.time_s + 0.5 / self.fps

    def frames_before(self, time_s: float) -> int:
        """F(t): number of frames whose timestamp plus half a mean interval is before ``time_s``."""
        return int(np.searchsorted(self._centres_s, time_s - TIME_TOLERANCE_S, side="left"))

    def block_edges(self, start_s: float, num_blocks: int) -> Int[ndarray, " edges"]:
        """``F(start + i)`` for i = 0 .. ``num_blocks``."""
        return np.array([self.frames_before(start_s + i) for i in range(num_blocks + 1)])


@dataclass(frozen=True)
class ConstantRate:
    """Frame clock of a constant rate, the ``cfr`` way of the published tables: ``F(t) = round(t fps)``, half to even.

    Args:
        num_frames: frames of the video.
        fps: frames per second.
    """

    num_frames: int
    fps: float

    def frames_before(self, time_s: float) -> int:
        """F(t), at most the number of frames."""
        return min(round(time_s * self.fps), self.num_frames)

    def block_edges(self, start_s: float, num_blocks: int) -> Int[ndarray, " edges"]:
        """``F(start) + round(i fps)`` for i = 0 .. ``num_blocks``."""
        first = self.frames_before(start_s)
        return np.array([min(first + round(i * self.fps), self.num_frames) for i in range(num_blocks + 1)])


def frame_ranges(clock: FrameClock, ranges_s: Iterable[tuple[float, float]]) -> Int[ndarray, "segments 2"]:
    """Frames ``[F(start), F(end))`` of each time range; a range that ends the video includes its last frame."""
    return np.array([(clock.frames_before(a), clock.frames_before(b)) for a, b in ranges_s], dtype=np.int64).reshape(
        -1, 2
    )


def patch_ranges(
    time_s: Float[ndarray, " frames"], shown_s: Float[ndarray, " n"], first: int, end: int
) -> Int[ndarray, "P 2"]:
    """Frames ``[f0, f1)`` of each temporal patch of a segment: those whose nearest input picture is in the patch.

    Args:
        time_s: time of every frame of the video.
        shown_s: times of the segment's input pictures, increasing. Two pictures make a temporal patch; an odd last one
            is a patch of its own.
        first: first frame of the segment.
        end: frame after the segment's last one.

    Returns:
        One range per patch, in order; together they are ``[first, end)``. At equal distance the earlier picture counts.
        A patch whose pictures lie in the segment has at least one frame.

    Source: spec, section 4, item 3.
    """
    halfway_s = (shown_s[1:-1:2] + shown_s[2::2]) / 2  # between neighbouring patches
    inner = np.searchsorted(time_s, halfway_s + TIME_TOLERANCE_S, side="right").clip(first, end)
    edges = np.concatenate([[first], inner, [end]])
    return np.stack([edges[:-1], edges[1:]], axis=1)


def window_starts(num_frames: int, window: int, hop: int) -> list[int]:
    """Starts of windows of ``window`` frames: 0, hop, ... while a window fits, plus one that ends with the track.

    A track shorter than a window has one window, which the caller pads.
    """
    if num_frames <= window:
        return [0]
    starts = list(range(0, num_frames - window + 1, hop))
    if starts[-1] != num_frames - window:
        starts.append(num_frames - window)
    return starts


def segment_windows(num_segments: int, window: int, hop: int) -> list[tuple[int, int]]:
    """Windows ``[start, end)`` over segments: starts 0, hop, ... until one reaches the end; the last may be shorter.

    Source: spec, section 4, item 4.
    """
    windows = [(0, min(window, num_segments))]
    while windows[-1][1] < num_segments:
        start = windows[-1][0] + hop
        windows.append((start, min(start + window, num_segments)))
    return windows


def overlap_mean(
    num_frames: int, parts: Iterable[tuple[int, Float[ndarray, "_ D"]]], width: int
) -> tuple[Float[ndarray, "frames D"], Bool[ndarray, " frames"]]:
    """Averages overlapping predictions per frame, all parts with equal weight.

    Args:
        num_frames: frames of the track.
        parts: first frame and values of each part; values past the track's end are ignored.
        width: D.

    Returns:
        The mean, 0 at frames without a part, and whether a frame has any part.
    """
    total = np.zeros((num_frames, width))
    count = np.zeros(num_frames, dtype=np.int64)
    for start, values in parts:
        length = min(len(values), num_frames - start)
        total[start : start + length] += values[:length]
        count[start : start + length] += 1
    return total / np.maximum(count, 1)[:, None], count > 0


def overlap_spread(
    num_frames: int, parts: Iterable[tuple[int, Float[ndarray, "_ D"]]], width: int
) -> Float[ndarray, "frames D"]:
    """Half the range of overlapping predictions per frame.

    Args:
        num_frames: frames of the track.
        parts: first frame and values of each part, as in :func:`overlap_mean`.
        width: D.

    Returns:
        (max - min) / 2, NaN at frames with fewer than two parts.
    """
    low, high = np.full((num_frames, width), np.inf), np.full((num_frames, width), -np.inf)
    count = np.zeros(num_frames, dtype=np.int64)
    for start, values in parts:
        cut = slice(start, min(start + len(values), num_frames))
        values = values[: cut.stop - start]
        low[cut], high[cut] = np.minimum(low[cut], values), np.maximum(high[cut], values)
        count[cut] += 1
    return np.where((count > 1)[:, None], (high - low) / 2, np.nan)


def nearest_valid(valid: Bool[ndarray, " frames"]) -> Int[ndarray, " frames"]:
    """Nearest valid frame of each frame: itself if it is valid, the earlier one at equal distance.

    Raises:
        ValueError: no frame is valid.
    """
    where = np.flatnonzero(valid)
    if len(where) == 0:
        raise ValueError("no valid frame to fill from")
    frames = np.arange(len(valid))
    right = np.searchsorted(where, frames).clip(max=len(where) - 1)
    left = (right - 1).clip(min=0)
    nearer_left = np.abs(frames - where[left]) <= np.abs(where[right] - frames)
    return np.where(nearer_left, where[left], where[right])


def block_positions(num_frames: int, num_blocks: int, fps: float, *, full: bool) -> Float[ndarray, " frames"]:
    """Position of each frame j of a segment on the axis of block centres, for linear interpolation.

    In a full segment of L frames and n blocks: ``clamp((j + .5) n / L - .5, 0, n - 1)``, as in
    ``F.interpolate(mode="linear", align_corners=False)``. In a tail, where blocks stay one second long:
    ``clamp((j + .5) / fps - .5, 0, n - 1)``.

    Args:
        num_frames: L, frames of the segment.
        num_blocks: n; in a tail, the blocks that have a frame.
        fps: mean frames per second.
        full: whether the segment has its full length.

    Returns:
        Positions in ``[0, num_blocks - 1]``.

    Differs: the authors' code stretches four seconds of blocks over a tail.
    """
    frame = np.arange(num_frames) + 0.5
    position = frame * num_blocks / num_frames if full else frame / fps
    return np.clip(position - 0.5, 0, num_blocks - 1)


def block_positions_at(time_s: Float[ndarray, " frames"], fps: float, num_blocks: int) -> Float[ndarray, " frames"]:
    """Positions as in :func:`block_positions`, from times: ``clamp(t + .5 / fps - .5, 0, n - 1)``.

    Args:
        time_s: t, seconds of each frame from the segment's start.
        fps: mean frames per second.
        num_blocks: n, one-second blocks from the segment's start.
    """
    return np.clip(time_s + 0.5 / fps - 0.5, 0, num_blocks - 1)


def interpolate_blocks(
    blocks: Float[ndarray, "K D"], positions: Float[ndarray, " frames"]
) -> Float[ndarray, "frames D"]:
    """Interpolates blocks linearly at fractional positions."""
    low = np.floor(positions).astype(np.int64)
    high = np.minimum(low + 1, len(blocks) - 1)
    share = (positions - low)[:, None]
    return blocks[low] * (1 - share) + blocks[high] * share


def range_means(values: Float[ndarray, "frames D"], ranges: Int[ndarray, "ranges 2"]) -> Float[ndarray, "ranges D"]:
    """Mean of the annotated (not NaN) frames of each range ``[f0, f1)``; NaN for a range without any.

    Source: spec, section 4, item 4, and section 5, item 4.
    """
    annotated = ~np.isnan(values).any(axis=1)
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(np.where(annotated[:, None], values, 0), axis=0)])
    count = np.concatenate([[0], np.cumsum(annotated)])
    first, last = np.clip(ranges, 0, len(values)).T
    number = (count[last] - count[first])[:, None]
    return np.divide(
        total[last] - total[first], number, out=np.full((len(ranges), values.shape[1]), np.nan), where=number > 0
    )


def sampled_frames(
    num_frames: int, seconds: float, frames_per_second: float = 4.0, most: int = 16
) -> Int[ndarray, " n"]:
    """Frames of a segment that the vision-language model reads: n evenly spaced ones, first and last included.

    ``round(linspace(0, N - 1, n))`` with ``n = min(most, max(4, even floor of frames_per_second x seconds), N)``.

    Args:
        num_frames: N, frames of the segment, >= 1.
        seconds: length of the segment.
        frames_per_second: sampled frames per second.
        most: largest n.

    Returns:
        Frame numbers from the segment's first frame, increasing.

    Source: spec, section 4, item 1.
    """
    even_floor = 2 * int(frames_per_second * seconds / 2 + TIME_TOLERANCE_S)
    n = min(most, max(4, even_floor), num_frames)
    return np.round(np.linspace(0, num_frames - 1, n)).astype(np.int64)


def moving_average(values: Float[ndarray, " frames"], width: int) -> Float[ndarray, " frames"]:
    """Centred moving average of an odd width, edges replicated.

    Source: spec, section 7.
    """
    if width % 2 == 0:
        raise ValueError(f"a centred moving average needs an odd width, not {width}")
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.full(width, 1 / width), mode="valid")


def runs(open_frames: Bool[ndarray, " frames"]) -> list[tuple[int, int, bool]]:
    """Maximal runs of equal values as ``(start, end, value)``."""
    if len(open_frames) == 0:
        return []
    edges = [0, *(np.flatnonzero(np.diff(open_frames)) + 1).tolist(), len(open_frames)]
    return [(a, b, bool(open_frames[a])) for a, b in itertools.pairwise(edges)]
