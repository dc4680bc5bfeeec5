"""Behaviour of a clip: the segments' frames, decoded once at the model's resolution, and their states."""

from collections import defaultdict
from collections.abc import Iterator
from typing import cast

import numpy as np
import pyarrow as pa
from numpy import ndarray

from affect import schema, timeline
from affect.behavior.prompt import PROMPTS, Prompt
from affect.behavior.qwen import Qwen, Shown, frame_size
from affect.config import Behavior
from affect.corpus import video
from affect.corpus.clip import Clip, Extracted

Segment = tuple[int, float, float]


class BehaviorClip:
    """Turns a clip into one row per segment and prompt.

    Args:
        settings: weights, frames, sizes.
    """

    def __init__(self, settings: Behavior) -> None:
        """Load the model."""
        self._settings = settings
        self._model = Qwen(settings)

    def __call__(self, clip: Clip) -> Extracted:
        """Extract a clip.

        Raises:
            MediaError: the video cannot be opened.
        """
        parts: list[pa.Table] = []
        seen = 0
        pending: list[tuple[Segment, Shown, Prompt]] = []
        for segment, shown in self._shown(clip):
            seen += 1
            pending += [(segment, shown, cast(Prompt, prompt)) for prompt in clip.prompts]
            if len(pending) >= self._settings.micro_batch:
                parts.append(self._table(pending))
                pending = []
        if pending:
            parts.append(self._table(pending))
        table = pa.concat_tables(parts) if parts else schema.BEHAVIOR.empty_table()
        expected = len(clip.segments)
        if seen == 0 and expected:
            return Extracted(table, "failed", "not one frame can be decoded")
        if seen < expected:
            return Extracted(table, "degraded", f"{expected - seen} of {expected} segments show no frame")
        return Extracted(table)

    def _shown(self, clip: Clip) -> Iterator[tuple[Segment, Shown]]:
        """Each segment with its pictures, as soon as they are decoded; a frame that is broken is left out."""
        wanted = {segment: self._frames(clip, segment) for segment in clip.segments}
        wanted = {segment: frames for segment, frames in wanted.items() if len(frames)}
        if not wanted:
            return
        users: dict[int, list[Segment]] = defaultdict(list)
        for segment, frames in wanted.items():
            for frame in frames:
                users[int(frame)].append(segment)
        pictures: dict[Segment, list[tuple[int, ndarray]]] = defaultdict(list)
        waiting = list(wanted)
        width, height = frame_size(clip.probe.width, clip.probe.height, self._settings)
        stream = video.decode(clip.uri, clip.probe, min(users), max(users) + 1, width=width, height=height)
        for frame, picture in stream:
            while waiting and frame > wanted[waiting[0]][-1]:
                yield from self._finish(clip, waiting.pop(0), pictures)
            for segment in users.get(frame, ()):
                pictures[segment].append((frame, picture))
        for segment in waiting:
            yield from self._finish(clip, segment, pictures)

    def _frames(self, clip: Clip, segment: Segment) -> ndarray:
        _, start_s, end_s = segment
        [(first, end)] = timeline.frame_ranges(clip.probe.clock, [(start_s, end_s)])
        if first == end:
            return np.empty(0, dtype=np.int64)
        settings = self._settings
        chosen = timeline.sampled_frames(
            int(end - first), end_s - start_s, settings.frames_per_second, settings.max_frames
        )
        return first + chosen

    @staticmethod
    def _finish(
        clip: Clip, segment: Segment, pictures: dict[Segment, list[tuple[int, ndarray]]]
    ) -> Iterator[tuple[Segment, Shown]]:
        if seen := pictures.pop(segment, []):
            frames, shown = zip(*seen, strict=True)
            time_s = np.clip(clip.probe.time_s[list(frames)] - segment[1], 0, None)
            yield segment, Shown(np.stack(shown), time_s)

    def _table(self, pending: list[tuple[Segment, Shown, Prompt]]) -> pa.Table:
        states = self._model([(shown, PROMPTS[prompt]) for _, shown, prompt in pending])
        columns = {
            "segment": [segment[0] for segment, _, _ in pending],
            "prompt": [prompt for _, _, prompt in pending],
            "start_s": [segment[1] for segment, _, _ in pending],
            "end_s": [segment[2] for segment, _, _ in pending],
            "multimodal": [s.multimodal for s in states],
            "vision": [s.vision for s in states],
            "patches": [list(s.patches) for s in states],
        }
        return pa.table(columns, schema=schema.BEHAVIOR)
