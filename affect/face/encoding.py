"""The contract of frame encoders, and the encoder that settings name."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from affect import weights
from affect.face.crop import Crop
from affect.face.mesh import Mesh
from affect.settings.extraction import Face


class Encoding(NamedTuple):
    """Outputs of an encoder for n faces.

    Args:
        embedding: input of the face model; NaN for a face that a mesh encoder has no mesh of.
        expression: logits in the order of :data:`affect.settings.names.EXPRESSIONS`, NaN in a class that the encoder
            does not know; None without any.
        affect: valence and arousal; None without.
    """

    embedding: Float[ndarray, "n D"]
    expression: Float[ndarray, "n 8"] | None = None
    affect: Float[ndarray, "n 2"] | None = None

    def finite(self, known: Sequence[int]) -> Bool[ndarray, " n"]:
        """Whether all outputs of a face are finite; those of expressions that are not ``known`` are not looked at."""
        parts = [self.embedding]
        parts += [] if self.expression is None else [self.expression[:, known]]
        parts += [] if self.affect is None else [self.affect]
        return np.all([np.isfinite(part).all(axis=1) for part in parts], axis=0)

    def take(self, kept: Bool[ndarray, " n"]) -> "Encoding":
        """Outputs of some faces."""
        expression, affect = (None if part is None else part[kept] for part in self[1:])
        return Encoding(self.embedding[kept], expression, affect)


class FrameEncoder(ABC):
    """A frame encoder.

    Attributes:
        crop: crop that it reads; None if it reads the mesh alone.
        known: indices of the expressions that it knows.
    """

    crop: Crop | None
    known: Sequence[int]

    @abstractmethod
    def __call__(self, crops: UInt8[ndarray, "n side side 3"], meshes: Sequence[Mesh | None] = ()) -> Encoding:
        """Encodes n >= 1 faces.

        Args:
            crops: RGB; of any size if the encoder reads none.
            meshes: mesh of each face, None where no mesh was found; read by an encoder without a crop.
        """


def load(settings: Face, device: str | None = None) -> FrameEncoder | None:
    """Loads the encoder that the settings name; None without weights.

    Args:
        settings: encoder, weights, micro-batch.
        device: ``cuda`` or ``cpu``; the available one if None.

    Raises:
        WeightsError: the weights cannot be fetched or read.
        ValueError: the weights are of another encoder or for crops of another size.
    """
    if settings.encoder == "blendshapes":
        from affect.face.blendshapes import BlendshapeEncoder

        return BlendshapeEncoder()
    if not settings.weights:
        return None
    if settings.encoder == "onnx":
        from affect.face.onnx_encoder import OnnxEncoder

        return OnnxEncoder(settings, device)
    from affect.face.grada import Encoder

    return Encoder(weights.folder(settings.weights), settings, device)
