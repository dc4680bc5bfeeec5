"""How the face's temporal regressor is fed."""

from jaxtyping import Float
from numpy import ndarray

from affect.corpus.track import Series, Track
from affect.face.part import FacePart
from affect.face.transformer import FaceTransformer as FaceTransformerModel
from affect.learning.batches import Example, Outputs, Window
from affect.learning.task import TrackTask, frame_example, frame_series, frame_spread, frame_windows
from affect.settings.models import FaceTransformer


class FaceTask(TrackTask):
    """The face's temporal regressor on windows of frames.

    Args:
        settings: of the model.
        width: width of the face embedding.
    """

    def __init__(self, settings: FaceTransformer, width: int) -> None:
        """Remember the settings."""
        self._model, self._width, self.settings = settings, width, settings.fit

    def build(self) -> FaceTransformerModel:
        """Fresh weights."""
        return FaceTransformerModel(self._model, self._width)

    def windows(self, track: Track) -> list[Window]:
        """Windows of T frames; none if the face was never found."""
        if not _face(track).valid.any():
            return []
        return frame_windows(track.num_frames, self._model.window_frames, self._model.window_hop_frames)

    def example(self, track: Track, window: Window) -> Example:
        """Embeddings, those of unseen frames filled from the nearest."""
        return frame_example(track, window, {"x": _face(track).embedding[slice(*window)]})

    def series(self, track: Track, outputs: Outputs) -> Series:
        """Overlap mean."""
        return frame_series(track, outputs, _face(track).valid, self._model.hidden)

    def spread(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
        """Of windows of frames."""
        return frame_spread(track, outputs)


def _face(track: Track) -> FacePart:
    part: FacePart = track.parts["face"]
    return part
