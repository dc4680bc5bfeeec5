"""Similarity of appearance: colours of face and shoulders, and proportions of the face mesh, in [0, 1].

    s(a, b) = sum over k of w_k s_k(a, b) / sum over k of w_k          k over the parts that a and b both show
    s_face = f_a . f_b,   s_shoulders = g_a . g_b,   s_mesh = exp(-|p_a - p_b|^2 / (2 SHAPE_SCALE^2))

f and g are square roots of colour histograms at length 1, so that a product is Bhattacharyya's coefficient; p are the
log proportions of :func:`affect.face.mesh.proportions`; w are :data:`WEIGHTS`.

Differs: the paper assigns identities by hand. GRADA's embedding is not used: it separates expressions, not people.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

WEIGHTS = (0.5, 0.25, 0.25)
"""Weights of the face's colours, the shoulders' colours and the mesh's proportions."""
SHAPE_SCALE = 0.15
"""Scale of a distance between proportions: about .05 within one person, .2 and more between two people."""


class Looks(NamedTuple):
    """Appearance of n faces or tracklets.

    Args:
        face: colours of the face, rows of length 1, or 0 where unknown.
        shoulders: colours of the shoulders, rows of length 1, or 0 where unknown.
        shape: proportions of the mesh, 0 where unknown.
        known: 1 where face, shoulders and mesh are known, else 0.
    """

    face: Float[ndarray, "n C"]
    shoulders: Float[ndarray, "n C"]
    shape: Float[ndarray, "n S"]
    known: Float[ndarray, "n 3"]

    @classmethod
    def of(cls, colors: Float[ndarray, "n C"], shape: Float[ndarray, "n S"]) -> "Looks":
        """Normalises colours of :func:`affect.face.appearance.colors` and proportions (NaN without a mesh)."""
        half = colors.shape[1] // 2
        # float32: these two arrays are most of the memory that tracking a video takes
        parts = [part.astype(np.float32) for part in (colors[:, :half], colors[:, half:])]
        lengths = [np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
        meshed = ~np.isnan(shape).any(axis=1, keepdims=True)
        known = np.concatenate([*(length > 0 for length in lengths), meshed], axis=1).astype(np.float64)
        face, shoulders = (part / np.maximum(length, 1e-12) for part, length in zip(parts, lengths, strict=True))
        return cls(face, shoulders, np.where(meshed, shape, 0.0), known)

    def take(self, rows: Int[ndarray, " m"] | list[int]) -> "Looks":
        """Selects rows."""
        return Looks(*(part[rows] for part in self))


def similarity(a: Looks, b: Looks) -> Float[ndarray, "n m"]:
    """Similarity of each of the n looks of a to each of the m of b."""
    squares = np.square(a.shape).sum(axis=1)[:, None] + np.square(b.shape).sum(axis=1)
    squared_distance = (squares - 2 * a.shape @ b.shape.T).clip(min=0)
    known = [np.outer(a.known[:, k], b.known[:, k]) for k in range(len(WEIGHTS))]
    return _weighted(a.face @ b.face.T, a.shoulders @ b.shoulders.T, squared_distance, known)


def similarity_to_previous(looks: Looks) -> Float[ndarray, " n"]:
    """Similarity of each row to the row before it, without the n x n matrix; 0 for the first row."""
    if not len(looks.face):
        return np.zeros(0)
    a, b = looks.take(np.arange(len(looks.face) - 1)), looks.take(np.arange(1, len(looks.face)))
    face, shoulders = ((x * y).sum(axis=1) for x, y in ((a.face, b.face), (a.shoulders, b.shoulders)))
    squared_distance = np.square(a.shape - b.shape).sum(axis=1)
    return np.append(0.0, _weighted(face, shoulders, squared_distance, list((a.known * b.known).T)))


def _weighted(face: ndarray, shoulders: ndarray, squared_distance: ndarray, known: Sequence[ndarray]) -> ndarray:
    similarities = (face, shoulders, np.exp(-0.5 * squared_distance / SHAPE_SCALE**2))
    weights = [w * both for w, both in zip(WEIGHTS, known, strict=True)]
    total = sum(weight * value for weight, value in zip(weights, similarities, strict=True))
    return np.asarray(total / np.maximum(sum(weights), 1e-12))
