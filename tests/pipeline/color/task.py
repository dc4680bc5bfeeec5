"""The model and its task: windows of frames in, one answer per frame out."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from affect.corpus.track import Series, Track
from affect.layers import Output
from affect.learning.batches import Example, Outputs, Window
from affect.learning.task import TrackTask, frame_example, frame_series, frame_windows
from tests.pipeline.color.settings import ColorModel


class ColorNet(nn.Module):
    """e = tanh(W_1 x);  v, a = W_2 e."""

    def __init__(self, settings: ColorModel, width: int) -> None:
        super().__init__()
        self.embed, self.predict = nn.Linear(width, settings.hidden), nn.Linear(settings.hidden, 2)

    def forward(self, x: Float[Tensor, "B T 3"], padding: Bool[Tensor, "B T"]) -> Output:
        """Valence and arousal of each frame."""
        embedding = torch.tanh(self.embed(x))
        return Output(self.predict(embedding), embedding)


class ColorTask(TrackTask):
    """Windows of frames."""

    def __init__(self, settings: ColorModel, width: int) -> None:
        self._model, self._width, self.settings = settings, width, settings.fit

    def build(self) -> ColorNet:
        """Fresh weights."""
        return ColorNet(self._model, self._width)

    def windows(self, track: Track) -> list[Window]:
        """Windows of frames."""
        return frame_windows(track.num_frames, self._model.window_frames, self._model.window_frames)

    def example(self, track: Track, window: Window) -> Example:
        """Colours of a window."""
        return frame_example(track, window, {"x": track.parts["color"].color[slice(*window)]})

    def series(self, track: Track, outputs: Outputs) -> Series:
        """Overlap mean."""
        return frame_series(track, outputs, track.parts["color"].valid, self._model.hidden)
