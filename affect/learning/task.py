"""What the tasks on tracks share: windows of frames, their outputs joined again."""

from abc import abstractmethod
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import nn

from affect import timeline
from affect.corpus.track import Blocks, Series, Track
from affect.layers import FusionOutput, Output
from affect.learning.batches import Arrays, Batch, Example, Outputs, Task, Window


class TrackTask(Task):
    """A task on tracks; its models are told which points only fill a window."""

    def forward(self, model: nn.Module, batch: Batch) -> Output | FusionOutput:
        """Inputs by the names of the model's arguments, and the padding."""
        return model(**batch.inputs, padding=batch.padding)

    def trains_on(self, track: Track, window: Window) -> bool:
        """Windows with an annotated frame."""
        return bool(track.annotated[slice(*window)].any())

    def shell(self, backbone: dict[str, Any]) -> nn.Module:
        """The model whose weights are read next, from the sizes of its pretrained part if it has one."""
        return self.build()

    @abstractmethod
    def series(self, track: Track, outputs: Outputs) -> Series:
        """What the model says of every frame."""

    def blocks(self, track: Track, outputs: Outputs) -> Blocks | None:
        """Outputs per block of each segment, of a model that has them."""
        return None

    def backbone_sizes(self, model: nn.Module) -> dict[str, Any]:
        """Sizes of the model's pretrained part, as :meth:`shell` reads them."""
        return {}

    def predict(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
        """Valence and arousal of every frame."""
        return self.series(track, outputs).prediction

    def spread(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
        """How far overlapping windows of frames are apart, see :func:`affect.timeline.overlap_spread`."""
        return np.full((track.num_frames, 2), np.nan)


def frame_windows(num_frames: int, window: int, hop: int) -> list[Window]:
    """Windows of frames that cover a track."""
    return [(start, min(start + window, num_frames)) for start in timeline.window_starts(num_frames, window, hop)]


def frame_example(
    track: Track, window: Window, inputs: dict[str, Arrays], whole: dict[str, Arrays] | None = None
) -> Example:
    """A window of frames with their annotations."""
    return Example(inputs, track.gold[slice(*window)], track.annotated[slice(*window)], whole or {})


def overlap(num_points: int, windows: list[Window], values: list[ndarray], width: int) -> Float[ndarray, "points D"]:
    """Overlap mean of what was said of windows."""
    return timeline.overlap_mean(num_points, _cut(windows, values), width)[0]


def frame_spread(track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
    """Half the range of what overlapping windows of frames say of valence and arousal, NaN where one says it."""
    return timeline.overlap_spread(track.num_frames, _cut(outputs.windows, outputs.predictions), 2)


def _cut(windows: list[Window], values: list[ndarray]) -> list[tuple[int, ndarray]]:
    """What was said of each window, without its padding."""
    return [(start, value[: end - start]) for (start, end), value in zip(windows, values, strict=True)]


def joined(outputs: Outputs) -> list[ndarray]:
    """``[embedding; prediction]`` of every window."""
    pairs = zip(outputs.embeddings, outputs.predictions, strict=True)
    return [np.concatenate(pair, axis=1) for pair in pairs]


def frame_series(track: Track, outputs: Outputs, valid: Bool[ndarray, " frames"], width: int) -> Series:
    """Overlap mean over windows of frames."""
    values = overlap(track.num_frames, outputs.windows, joined(outputs), width + 2)
    return Series(values[:, :-2], values[:, -2:], valid)


def covered_series(values: Float[ndarray, "frames D"], covered: Bool[ndarray, " frames"]) -> Series:
    """Split ``[embedding; prediction]``, a frame that nothing covers filled from the nearest."""
    filled = values[timeline.nearest_valid(covered)] if covered.any() else values
    return Series(filled[:, :-2], filled[:, -2:], covered)
