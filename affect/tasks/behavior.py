"""How the behaviour's Mamba is fed."""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from affect import timeline
from affect.batches import Example, Outputs, Window
from affect.behavior.mamba import Mamba
from affect.config import Mamba as MambaSettings
from affect.corpus.track import Series, Track
from affect.tasks.track import TrackTask, covered_series, joined, overlap


class BehaviorTask(TrackTask):
    """The behaviour's Mamba on windows of segments.

    Args:
        settings: of the model.
        width: width of a segment's state.
    """

    def __init__(self, settings: MambaSettings, width: int) -> None:
        """Remember the settings."""
        self._model, self._width, self.settings = settings, width, settings.fit

    def build(self) -> Mamba:
        """Fresh weights."""
        return Mamba(self._model, self._width)

    def windows(self, track: Track) -> list[Window]:
        """Windows of segments; none if no segment has states."""
        valid = track.segments.behavior_valid
        if not valid.any():
            return []
        return timeline.segment_windows(len(valid), self._model.window_segments, self._model.window_hop_segments)

    def trains_on(self, track: Track, window: Window) -> bool:
        """Windows with a segment that has states and an annotated frame."""
        return bool(_annotated(track)[slice(*window)].any())

    def example(self, track: Track, window: Window) -> Example:
        """States, those of segments without any filled from the nearest; targets are means over segments."""
        states = getattr(track.segments, self._model.states)
        filled = states[timeline.nearest_valid(track.segments.behavior_valid)[slice(*window)]]
        cut = slice(*window)
        return Example({"x": filled}, track.segment_gold[cut], _annotated(track)[cut])

    def series(self, track: Track, outputs: Outputs) -> Series:
        """Overlap mean over segments, copied to their frames, averaged where segments overlap."""
        segments, width = track.segments, self._model.hidden + 2
        per_segment = overlap(len(segments.ranges), outputs.windows, joined(outputs), width)
        parts = [
            (int(first), np.repeat(per_segment[i][None], last - first, axis=0))
            for i, (first, last) in enumerate(segments.ranges)
            if segments.behavior_valid[i]
        ]
        return covered_series(*timeline.overlap_mean(track.num_frames, parts, width))


def _annotated(track: Track) -> Bool[ndarray, " segments"]:
    gold: Float[ndarray, "segments 2"] = track.segment_gold
    return ~np.isnan(gold).any(axis=1) & track.segments.behavior_valid
