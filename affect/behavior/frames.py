"""What the vision-language model is shown: the frames of every segment of a clip, decoded once, at its resolution."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from affect import timeline
from affect.behavior.checkpoint import Shown, frame_size
from affect.corpus import video
from affect.corpus.clip import Clip
from affect.corpus.video import MediaError
from affect.settings.extraction import Behavior
from affect.storage.extracted import Extracted


class Segment(NamedTuple):
    """A segment of a clip.

    Args:
        number: within the video.
        start_s: start.
        end_s: end.
    """

    number: int
    start_s: float
    end_s: float


def shown(clip: Clip, settings: Behavior, after: int = -1) -> Iterator[tuple[Segment, Shown]]:
    """Each segment with its pictures, as soon as they are decoded; segments without any picture are left out.

    A frame is decoded once for all segments that show it and scaled once; a frame whose data are broken is left out.

    Args:
        clip: the clip, whose segments may reach past its end.
        settings: how many frames, how large.
        after: number of the last segment that is left out; all are shown if not given.

    Raises:
        MediaError: the video cannot be opened, or no picture of its shape can be shown.

    Source: spec section 4.1.
    """
    wanted = {segment: frames for segment, frames in _wanted(clip, settings).items() if segment.number > after}
    if not wanted:
        return
    users: dict[int, list[Segment]] = defaultdict(list)
    for segment, frames in wanted.items():
        for frame in frames:
            users[int(frame)].append(segment)
    pictures: dict[Segment, list[tuple[int, ndarray]]] = defaultdict(list)
    waiting = list(wanted)
    try:
        width, height = frame_size(clip.probe.width, clip.probe.height, settings)
    except ValueError as error:
        raise MediaError(f"pictures of {clip.probe.width} x {clip.probe.height} cannot be shown ({error})") from error
    stream = video.decode(clip.uri, clip.probe, min(users), max(users) + 1, width=width, height=height, only=users)
    for frame, picture in stream:
        while waiting and frame > wanted[waiting[0]][-1]:
            yield from _finish(clip, waiting.pop(0), pictures)
        for segment in users[frame]:
            pictures[segment].append((frame, picture))
    for segment in waiting:
        yield from _finish(clip, segment, pictures)


def extracted(
    table: pa.Table, clip: Clip, settings: Behavior, num_shown: int, reasons: Sequence[str] = ()
) -> Extracted:
    """What was made of a clip, with its status.

    Args:
        table: the rows.
        clip: the clip.
        settings: how many frames its segments should show.
        num_shown: how many they showed, those that two of them show counted twice.
        reasons: what else is missing.
    """
    expected = sum(len(frames) for frames in _wanted(clip, settings).values())
    if expected and not num_shown:
        return Extracted(table, "failed", "not one frame can be decoded")
    broken = [f"{expected - num_shown} of {expected} pictures cannot be decoded"] if num_shown < expected else []
    if why := ", ".join([*broken, *reasons]):
        return Extracted(table, "degraded" if table.num_rows else "failed", why)
    return Extracted(table)


def share(clip: Clip, number: int) -> float:
    """Share of a clip's segments up to one."""
    segments = clip.segments
    return sum(own <= number for own, _, _ in segments) / len(segments)


def _wanted(clip: Clip, settings: Behavior) -> dict[Segment, Int[ndarray, " n"]]:
    """The frames that each segment shows; a hole in the video may leave a segment without any."""
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
) -> Iterator[tuple[Segment, Shown]]:
    if seen := pictures.pop(segment, []):
        frames, rgb = zip(*seen, strict=True)
        time_s: Float[ndarray, " n"] = clip.probe.time_s[list(frames)] - segment.start_s
        yield segment, Shown(np.stack(rgb), time_s)
