"""Clips: time ranges of videos, the units of extraction work."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from affect import timeline
from affect.corpus.probe import Probe
from affect.settings.extraction import Grid


@dataclass(frozen=True)
class Clip:
    """A time range of a video, with the frames in ``[start_s, end_s)`` and the segments that start in it.

    Args:
        uri: path or URI of the video.
        probe: the video's probe.
        start_s: start in seconds, a multiple of the segments' hop.
        end_s: end in seconds, exclusive.
        grid: the time grid.
        prompts: prompts of the behaviour modality: ``neutral``, ``left``, ``right``.
    """

    uri: str
    probe: Probe
    start_s: float
    end_s: float
    grid: Grid
    prompts: tuple[str, ...] = ("neutral",)

    @property
    def frames(self) -> tuple[int, int]:
        """Frames ``[first, last)`` of the clip."""
        return clip_frames(self.probe.time_s, self.start_s, self.end_s)

    @property
    def segments(self) -> list[tuple[int, float, float]]:
        """``(number, start_s, end_s)`` of the segments that start in the clip; there may be none."""
        ranges = timeline.segments(self.probe.clock.duration_s, self.grid.segment_s, self.grid.hop_s)
        return [(n, a, b) for n, (a, b) in enumerate(ranges) if self.start_s <= a < self.end_s]


def clip_frames(time_s: Sequence[float] | Float[ndarray, " frames"], start_s: float, end_s: float) -> tuple[int, int]:
    """Frames ``[first, last)`` with ``start_s <= t < end_s``, by their times."""
    edges_s = [start_s - timeline.TIME_TOLERANCE_S, end_s - timeline.TIME_TOLERANCE_S]
    first, last = np.searchsorted(np.asarray(time_s), edges_s, side="left")
    return int(first), int(last)
