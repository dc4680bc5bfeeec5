"""The mouth: how far the lips are open, from a face mesh.

Source: paper, section 3.4 (audio filter); indices of MediaPipe's face mesh.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
"""Inner edge of the upper lip, from corner to corner."""
LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
"""Inner edge of the lower lip, from corner to corner."""


def inner_lip_area(points: Float[ndarray, "points 2"]) -> float:
    """Area between the inner lips as the sum of 20 triangles.

    For i = 0 .. 9: ``(U_i, L_i, U_i+1)`` and ``(L_i+1, L_i, U_i+1)``, each ``|shoelace| / 2``.

    Args:
        points: the mesh in 2-D coordinates normalised to the crop.

    Returns:
        Area in squared sides of the crop, >= 0.

    Differs: the authors' crops are aligned and 112 px; these coordinates are those of the letterboxed crop.
    """
    upper, lower = points[list(UPPER)], points[list(LOWER)]
    first = _triangles(upper[:-1], lower[:-1], upper[1:])
    second = _triangles(lower[1:], lower[:-1], upper[1:])
    return float((first + second).sum())


def _triangles(a: Float[ndarray, "n 2"], b: Float[ndarray, "n 2"], c: Float[ndarray, "n 2"]) -> Float[ndarray, " n"]:
    ab, ac = b - a, c - a
    return np.abs(ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]) / 2
