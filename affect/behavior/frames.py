"""What the vision-language model is shown: the frames of every segment of a clip, decoded once, at its resolution."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from affect import timeline
from affect.behavior.qwen import Shown, frame_size
from affect.config import Behavior
from affect.corpus import video
from affect.corpus.clip import Clip, Extracted


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


def shown(clip: Clip, settings: Behavior) -> Iterator[tuple[Segment, Shown]]:
    """Each segment with its pictures, as soon as they are decoded; segments without any picture are left out.

    A frame is decoded once for all segments that show it and scaled once; a frame whose data are broken is left out.

    Args:
        clip: the clip, whose segments may reach past its end.
        settings: how many frames, how large.

    Raises:
        MediaError: the video cannot be opened.

    Source: spec section 4.1.
    """
    wanted = {Segment(*segment): _frames(clip, Segment(*segment), settings) for segment in clip.segments}
    wanted = {segment: frames for segment, frames in wanted.items() if len(frames)}
    if not wanted:
        return
    users: dict[int, list[Segment]] = defaultdict(list)
    for segment, frames in wanted.items():
        for frame in frames:
            users[int(frame)].append(segment)
    pictures: dict[Segment, list[tuple[int, ndarray]]] = defaultdict(list)
    waiting = list(wanted)
    width, height = frame_size(clip.probe.width, clip.probe.height, settings)
    stream = video.decode(clip.uri, clip.probe, min(users), max(users) + 1, width=width, height=height, only=users)
    for frame, picture in stream:
        while waiting and frame > wanted[waiting[0]][-1]:
            yield from _finish(clip, waiting.pop(0), pictures)
        for segment in users[frame]:
            pictures[segment].append((frame, picture))
    for segment in waiting:
        yield from _finish(clip, segment, pictures)


def extracted(table: pa.Table, clip: Clip, seen: int, reasons: Sequence[str] = ()) -> Extracted:
    """What was made of a clip, with its status.

    Args:
        table: the rows.
        clip: the clip.
        seen: segments that show anything.
        reasons: what else is missing.
    """
    expected = len(clip.segments)
    if seen == 0 and expected:
        return Extracted(table, "failed", "not one frame can be decoded")
    unseen = [f"{expected - seen} of {expected} segments show no frame"] if seen < expected else []
    if why := ", ".join([*unseen, *reasons]):
        return Extracted(table, "degraded" if table.num_rows else "failed", why)
    return Extracted(table)


def _frames(clip: Clip, segment: Segment, settings: Behavior) -> Int[ndarray, " n"]:
    [(first, end)] = timeline.frame_ranges(clip.probe.clock, [segment[1:]])
    if first == end:
        return np.empty(0, dtype=np.int64)
    length_s = segment.end_s - segment.start_s
    return first + timeline.sampled_frames(int(end - first), length_s, settings.frames_per_second, settings.max_frames)


def _finish(
    clip: Clip, segment: Segment, pictures: dict[Segment, list[tuple[int, UInt8[ndarray, "H W 3"]]]]
) -> Iterator[tuple[Segment, Shown]]:
    if seen := pictures.pop(segment, []):
        frames, shown = zip(*seen, strict=True)
        time_s: Float[ndarray, " n"] = np.clip(clip.probe.time_s[list(frames)] - segment.start_s, 0, None)
        yield segment, Shown(np.stack(shown), time_s)
