"""The behaviour's task: windows of segments, or of their half seconds, in; one Series per track out.

Source: spec sections 2, 4.4 and 4.5.
"""

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
    """Sequence that the model reads of a track: its segments, or the half seconds of each segment, in order of time.

    Args:
        states: hidden states of the vision-language model.
        rows: row of ``states`` of each point: its own, or the nearest valid one.
        ranges: frames ``[f0, f1)`` of each point.
        gold: mean annotation of those frames, NaN if none is annotated.
        valid: true for points with a state of their own.
        per_segment: points of a full segment.
    """

    states: Float[ndarray, "states D"]
    rows: Int[ndarray, " points"]
    ranges: Int[ndarray, "points 2"]
    gold: Float[ndarray, "points 2"]
    valid: Bool[ndarray, " points"]
    per_segment: int


class BehaviorTask(TrackTask):
    """Trains and runs the behaviour's Mamba on windows of 16 segments, or of their half seconds.

    The target of a point is the mean of its annotated frames; points without one are masked in the loss.

    Args:
        settings: settings of the Mamba and its training.
        width: D, width of a hidden state.

    Source: spec section 4.4.
    Differs: the authors' code drops segments without annotation; here they stay in the input.
    """

    def __init__(self, settings: MambaSettings, width: int) -> None:
        """Stores the settings."""
        self._model, self._width, self.settings = settings, width, settings.fit

    def build(self) -> Mamba:
        """Builds the model with random weights."""
        return Mamba(self._model, self._width)

    def points(self, track: Track) -> Points | None:
        """Selects the states of ``settings.states`` as points; None if no segment has states."""
        part: BehaviorPart = track.parts["behavior"]
        patches = part.patches
        if not part.valid.any():
            return None
        if self._model.states == "dense":
            num, per_segment = len(patches.segment), int(np.bincount(patches.segment).max())
            valid = np.ones(num, dtype=bool)  # a segment without states has no patches
            return Points(
                patches.states,
                np.arange(num),
                patches.ranges,
                timeline.range_means(track.gold, patches.ranges),
                valid,
                per_segment,
            )
        states: ndarray = getattr(part, self._model.states)
        nearest = timeline.nearest_valid(part.valid)
        return Points(states, nearest, track.segments.ranges, track.segment_gold, part.valid, 1)

    def windows(self, track: Track) -> list[Window]:
        """Windows ``[start, end)`` of points; none if no segment has states."""
        points = self.points(track)
        if points is None:
            return []
        size, hop = self._model.window_segments, self._model.window_hop_segments
        return timeline.segment_windows(len(points.rows), size * points.per_segment, hop * points.per_segment)

    def trains_on(self, track: Track, window: Window) -> bool:
        """True for windows with a point that has a state and an annotated frame."""
        points = self.points(track)
        return points is not None and bool(_annotated(points)[slice(*window)].any())

    def example(self, track: Track, window: Window) -> Example:
        """States and mean annotations of a window's points; a point without a state takes the nearest one's."""
        points, cut = self.points(track), slice(*window)
        assert points is not None
        return Example({"x": points.states[points.rows[cut]]}, points.gold[cut], _annotated(points)[cut])

    def series(self, track: Track, outputs: Outputs) -> Series:
        """Averages overlapping windows per point, copies each point to its frames, averages overlapping points."""
        points, width = self.points(track), self._model.hidden + 2
        parts: list[tuple[int, ndarray]] = []
        if points is not None:
            values = overlap(len(points.rows), outputs.windows, joined(outputs), width)
            parts = [
                (int(first), np.repeat(values[i][None], last - first, axis=0))
                for i, (first, last) in enumerate(points.ranges)
                if points.valid[i]
            ]
        return covered_series(*timeline.overlap_mean(track.num_frames, parts, width))


def _annotated(points: Points) -> Bool[ndarray, " points"]:
    return ~np.isnan(points.gold).any(axis=1) & points.valid
