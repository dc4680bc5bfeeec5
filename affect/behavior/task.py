"""How the behaviour's Mamba is fed: with one state of each segment, or with those of its half seconds."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from affect import timeline
from affect.behavior.mamba import Mamba
from affect.behavior.part import BehaviorPart
from affect.corpus.track import Series, Track
from affect.learning.batches import Example, Outputs, Window
from affect.learning.task import TrackTask, covered_series, joined, overlap
from affect.settings.models import Mamba as MambaSettings


class Points(NamedTuple):
    """What the model reads of a track: its segments in order of time, or their half seconds, segment after segment.

    Args:
        states: one per point.
        rows: which row of ``states`` a point reads: itself, or the nearest that is valid.
        ranges: frames ``[f0, f1)`` that a point stands for.
        gold: mean of their annotations, NaN where there is none.
        valid: whether the point has a state of its own.
        per_segment: points of a full segment.
    """

    states: Float[ndarray, "states D"]
    rows: Int[ndarray, " points"]
    ranges: Int[ndarray, "points 2"]
    gold: Float[ndarray, "points 2"]
    valid: Bool[ndarray, " points"]
    per_segment: int


class BehaviorTask(TrackTask):
    """The behaviour's Mamba on windows of segments, or of as many segments' half seconds.

    Args:
        settings: of the model.
        width: width of a state.
    """

    def __init__(self, settings: MambaSettings, width: int) -> None:
        """Remember the settings."""
        self._model, self._width, self.settings = settings, width, settings.fit

    def build(self) -> Mamba:
        """Fresh weights."""
        return Mamba(self._model, self._width)

    def points(self, track: Track) -> Points | None:
        """What the model reads of a track; None if no segment has states."""
        part: BehaviorPart = track.parts["behavior"]
        patches = part.patches
        if not part.valid.any():
            return None
        if self._model.states == "dense":
            num, most = len(patches.segment), int(np.bincount(patches.segment).max())
            patch_gold = timeline.range_means(track.gold, patches.ranges)
            there = np.ones(num, dtype=bool)  # a segment without states has no patches
            return Points(patches.states, np.arange(num), patches.ranges, patch_gold, there, most)
        states: ndarray = getattr(part, self._model.states)
        nearest = timeline.nearest_valid(part.valid)
        return Points(states, nearest, track.segments.ranges, track.segment_gold, part.valid, 1)

    def windows(self, track: Track) -> list[Window]:
        """Windows of points; none if no segment has states."""
        points = self.points(track)
        if points is None:
            return []
        size, hop = self._model.window_segments, self._model.window_hop_segments
        return timeline.segment_windows(len(points.rows), size * points.per_segment, hop * points.per_segment)

    def trains_on(self, track: Track, window: Window) -> bool:
        """Windows with a point that has a state and an annotated frame."""
        points = self.points(track)
        return points is not None and bool(_annotated(points)[slice(*window)].any())

    def example(self, track: Track, window: Window) -> Example:
        """States, those of points without one filled from the nearest; targets are means over a point's frames."""
        points, cut = self.points(track), slice(*window)
        assert points is not None
        return Example({"x": points.states[points.rows[cut]]}, points.gold[cut], _annotated(points)[cut])

    def series(self, track: Track, outputs: Outputs) -> Series:
        """Overlap mean over points, copied to their frames, averaged where points overlap."""
        points, width = self.points(track), self._model.hidden + 2
        parts: list[tuple[int, ndarray]] = []
        if points is not None:
            said = overlap(len(points.rows), outputs.windows, joined(outputs), width)
            parts = [
                (int(first), np.repeat(said[i][None], last - first, axis=0))
                for i, (first, last) in enumerate(points.ranges)
                if points.valid[i]
            ]
        return covered_series(*timeline.overlap_mean(track.num_frames, parts, width))


def _annotated(points: Points) -> Bool[ndarray, " points"]:
    return ~np.isnan(points.gold).any(axis=1) & points.valid
