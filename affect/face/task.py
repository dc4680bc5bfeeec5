"""The face's task: windows of frames in, one Series per track out.

Source: spec section 2 (windows and overlap mean) and section 3.5 (frames without a face).
"""

from dataclasses import replace

from jaxtyping import Float
from numpy import ndarray

from affect.corpus.track import Series, Track
from affect.face.part import FacePart
from affect.face.transformer import FaceTransformer as FaceTransformerModel
from affect.learning.batches import Example, Outputs, Window
from affect.learning.centering import centred, centred_width
from affect.learning.task import TrackTask, frame_example, frame_series, frame_spread, frame_windows
from affect.settings.models import FaceTransformer


class FaceTask(TrackTask):
    """Trains and runs the face Transformer on windows of T frames.

    Args:
        settings: settings of the Transformer and its training.
        width: width of the face embedding.
    """

    def __init__(self, settings: FaceTransformer, width: int) -> None:
        """Stores the settings."""
        self._model, self._width, self.settings = settings, centred_width(width, settings.center), settings.fit

    def build(self) -> FaceTransformerModel:
        """Builds the model with random weights."""
        return FaceTransformerModel(self._model, self._width)

    def prepare(self, track: Track) -> Track:
        """Face embeddings, with or relative to the person's median if the settings say so."""
        face = _face(track)
        embedding = centred(face.embedding, face.valid, self._model.center)
        return replace(track, parts={**track.parts, "face": replace(face, embedding=embedding)})

    def windows(self, track: Track) -> list[Window]:
        """Windows ``[start, end)`` of T frames; none if no frame of the track has a face."""
        if not _face(track).valid.any():
            return []
        return frame_windows(track.num_frames, self._model.window_frames, self._model.window_hop_frames)

    def example(self, track: Track, window: Window) -> Example:
        """Face embeddings of a window; a frame without a face holds the nearest one's."""
        return frame_example(track, window, {"x": _face(track).embedding[slice(*window)]})

    def series(self, track: Track, outputs: Outputs) -> Series:
        """Mean over overlapping windows, per frame; valid where the frame has a face."""
        return frame_series(track, outputs, _face(track).valid, self._model.hidden)

    def spread(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
        """Half the range of the overlapping windows' predictions, per frame."""
        return frame_spread(track, outputs)


def _face(track: Track) -> FacePart:
    part: FacePart = track.parts["face"]
    return part
