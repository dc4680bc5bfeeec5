"""Frames of a clip's segments for the vision-language model, each decoded and scaled once.

Source: paper (arXiv 2603.13056), section 3.3; spec section 4.1.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from affect import timeline
from affect.behavior.checkpoint import SegmentFrames, frame_size
from affect.corpus import video
from affect.corpus.clip import Clip
from affect.corpus.video import MediaError
from affect.settings.extraction import Behavior
from affect.storage.extracted import Extracted


class Segment(NamedTuple):
    """A segment of a clip.

    Args:
        number: number of the segment in the video.
        start_s: start in seconds.
        end_s: end in seconds.
    """

    number: int
    start_s: float
    end_s: float


def segment_frames(clip: Clip, settings: Behavior, after: int = -1) -> Iterator[tuple[Segment, SegmentFrames]]:
    """Yields each segment with its frames as soon as they are decoded; skips segments without any frame.

    A frame that several segments share is decoded and scaled once. Frames that cannot be decoded are left out.

    Args:
        clip: the clip; its last segments may reach past its end.
        settings: number and size of frames.
        after: segments up to this number are skipped; -1 skips none.

    Raises:
        MediaError: the video cannot be opened, or its aspect ratio is outside of the model's limits.
    """
    sampled = {segment: frames for segment, frames in _sampled(clip, settings).items() if segment.number > after}
    if not sampled:
        return
    users: dict[int, list[Segment]] = defaultdict(list)
    for segment, frames in sampled.items():
        for frame in frames:
            users[int(frame)].append(segment)
    pictures: dict[Segment, list[tuple[int, ndarray]]] = defaultdict(list)
    waiting = list(sampled)
    try:
        width, height = frame_size(clip.probe.width, clip.probe.height, settings)
    except ValueError as error:
        raise MediaError(f"pictures of {clip.probe.width} x {clip.probe.height} cannot be shown ({error})") from error
    stream = video.decode(clip.uri, clip.probe, min(users), max(users) + 1, width=width, height=height, only=users)
    for frame, picture in stream:
        while waiting and frame > sampled[waiting[0]][-1]:
            yield from _finish(clip, waiting.pop(0), pictures)
        for segment in users[frame]:
            pictures[segment].append((frame, picture))
    for segment in waiting:
        yield from _finish(clip, segment, pictures)


def with_status(
    table: pa.Table, clip: Clip, settings: Behavior, num_shown: int, reasons: Sequence[str] = ()
) -> Extracted:
    """Adds status and reason: failed without any frame or row, degraded if anything is missing.

    Args:
        table: rows of the clip.
        clip: the clip.
        settings: number of frames per segment.
        num_shown: frames of all segments that were decoded; a frame of two segments counts twice.
        reasons: further reasons for a degraded result.
    """
    expected = sum(len(frames) for frames in _sampled(clip, settings).values())
    if expected and not num_shown:
        return Extracted(table, "failed", "not one frame can be decoded")
    broken = [f"{expected - num_shown} of {expected} pictures cannot be decoded"] if num_shown < expected else []
    if reason := ", ".join([*broken, *reasons]):
        return Extracted(table, "degraded" if table.num_rows else "failed", reason)
    return Extracted(table)


def share_done(clip: Clip, last: int) -> float:
    """Share of a clip's segments with numbers up to ``last``."""
    segments = clip.segments
    return sum(number <= last for number, _, _ in segments) / len(segments)


def _sampled(clip: Clip, settings: Behavior) -> dict[Segment, Int[ndarray, " n"]]:
    """Sampled frame numbers of each segment; segments without any frame are left out."""
    segments = [Segment(*segment) for segment in clip.segments]
    ranges = timeline.frame_ranges(clip.probe.clock, [(segment.start_s, segment.end_s) for segment in segments])
    per_second, most = settings.frames_per_second, settings.max_frames
    return {
        segment: first + timeline.sampled_frames(end - first, segment.end_s - segment.start_s, per_second, most)
        for segment, (first, end) in zip(segments, ranges.tolist(), strict=True)
        if first < end
    }


def _finish(
    clip: Clip, segment: Segment, pictures: dict[Segment, list[tuple[int, UInt8[ndarray, "H W 3"]]]]
) -> Iterator[tuple[Segment, SegmentFrames]]:
    if decoded := pictures.pop(segment, []):
        frames, rgb = zip(*decoded, strict=True)
        time_s: Float[ndarray, " n"] = clip.probe.time_s[list(frames)] - segment.start_s
        yield segment, SegmentFrames(np.stack(rgb), time_s)
