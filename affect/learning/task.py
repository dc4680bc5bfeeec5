"""Base of all tasks on tracks: windows of frames, and their outputs joined to one Series per track.

Source: spec section 2.
"""

from abc import abstractmethod
from collections.abc import Sequence
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
    """A task whose items are tracks and whose models take the padding mask."""

    def forward(self, model: nn.Module, batch: Batch) -> Output | FusionOutput:
        """Calls the model with the inputs as keyword arguments, and the padding."""
        return model(**batch.inputs, padding=batch.padding)

    def trains_on(self, track: Track, window: Window) -> bool:
        """True for windows with an annotated frame."""
        return bool(track.annotated[slice(*window)].any())

    def build_empty(self, backbone: dict[str, Any]) -> nn.Module:
        """Builds the model without pretrained weights, for :func:`affect.learning.checkpoint.load_weights`.

        Args:
            backbone: configuration of the model's pretrained part; empty if it has none.
        """
        return self.build()

    def prepare(self, track: Track) -> Track:
        """The track with everything that the task reads; unchanged by default."""
        return track

    def solve(self, training: Sequence[Track], development: Sequence[Track]) -> Any:  # noqa: ANN401
        """A :class:`affect.learning.fit.Fitted` model in closed form; None for a task that is trained by gradients."""
        return None

    @abstractmethod
    def series(self, track: Track, outputs: Outputs) -> Series:
        """Joins the windows' outputs to embedding, prediction and validity of every frame."""

    def blocks(self, track: Track, outputs: Outputs) -> Blocks | None:
        """Outputs per block of each segment; None for a model that has none."""
        return None

    def backbone_sizes(self, model: nn.Module) -> dict[str, Any]:
        """Sizes of the model's pretrained part, as :meth:`build_empty` takes them."""
        return {}

    def predict(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
        """Returns valence and arousal of every frame."""
        return self.series(track, outputs).prediction

    def spread(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
        """Half the range of overlapping windows' predictions, see :func:`affect.timeline.overlap_spread`; NaN here."""
        return np.full((track.num_frames, 2), np.nan)


def frame_windows(num_frames: int, window: int, hop: int) -> list[Window]:
    """Windows ``[start, end)`` of frames that cover a track."""
    return [(start, min(start + window, num_frames)) for start in timeline.window_starts(num_frames, window, hop)]


def frame_example(
    track: Track, window: Window, inputs: dict[str, Arrays], whole: dict[str, Arrays] | None = None
) -> Example:
    """Builds the example of a window of frames: inputs, gold values, annotated mask."""
    return Example(inputs, track.gold[slice(*window)], track.annotated[slice(*window)], whole or {})


def overlap(num_points: int, windows: list[Window], values: list[ndarray], width: int) -> Float[ndarray, "points D"]:
    """Mean over overlapping windows' values, per point."""
    return timeline.overlap_mean(num_points, _cut(windows, values), width)[0]


def frame_spread(track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
    """Half the range of overlapping windows' predictions per frame; NaN where one window alone covers it."""
    return timeline.overlap_spread(track.num_frames, _cut(outputs.windows, outputs.predictions), 2)


def _cut(windows: list[Window], values: list[ndarray]) -> list[tuple[int, ndarray]]:
    """Start and values of each window, without its padding."""
    return [(start, value[: end - start]) for (start, end), value in zip(windows, values, strict=True)]


def joined(outputs: Outputs) -> list[ndarray]:
    """Concatenates ``[embedding; prediction]`` of every window."""
    pairs = zip(outputs.embeddings, outputs.predictions, strict=True)
    return [np.concatenate(pair, axis=1) for pair in pairs]


def frame_series(track: Track, outputs: Outputs, valid: Bool[ndarray, " frames"], width: int) -> Series:
    """Joins windows of frames to a Series by the mean over overlapping windows."""
    values = overlap(track.num_frames, outputs.windows, joined(outputs), width + 2)
    return Series(values[:, :-2], values[:, -2:], valid)


def covered_series(values: Float[ndarray, "frames D"], covered: Bool[ndarray, " frames"]) -> Series:
    """Splits ``[embedding; prediction]``; a frame that is not covered takes the nearest covered frame's values."""
    filled = values[timeline.nearest_valid(covered)] if covered.any() else values
    return Series(filled[:, :-2], filled[:, -2:], covered)
