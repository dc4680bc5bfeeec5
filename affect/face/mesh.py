"""The face mesh of a crop: how far the lips are open, expression coefficients, and the face's proportions.

Source: paper, section 3.4 (audio filter); indices of MediaPipe's face mesh.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from affect import weights
from affect.face.detect import image_of, silenced, without_finalizer
from affect.settings.extraction import Face

UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
"""Inner edge of the upper lip, from corner to corner."""
LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
"""Inner edge of the lower lip, from corner to corner."""
RIGID = (33, 133, 362, 263, 168, 1, 98, 327, 234, 454)
"""Points that no expression moves: corners of the eyes, bridge, tip and wings of the nose, sides of the face."""
FIRST, SECOND = (list(ends) for ends in zip(*combinations(RIGID, 2), strict=True))


class Mesh(NamedTuple):
    """What the mesh says of one crop.

    Args:
        lip_area: inner-lip area in squared sides of the crop, >= 0.
        blendshapes: 52 coefficients in [0, 1].
        shape: proportions of the face, from :func:`proportions`.
    """

    lip_area: float
    blendshapes: Float[ndarray, " 52"]
    shape: Float[ndarray, " 45"]


class Mesher:
    """MediaPipe's face landmarker on single crops, without state: 478 points each.

    Args:
        settings: the model and its confidence.

    Source: MediaPipe's Face Landmarker task, image mode.
    """

    def __init__(self, settings: Face) -> None:
        """Load the model."""
        from mediapipe.tasks.python import BaseOptions
        from mediapipe.tasks.python.vision import FaceLandmarker, FaceLandmarkerOptions

        without_finalizer(FaceLandmarker)
        options = FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(weights.file(settings.landmarker))),
            num_faces=1,
            min_face_detection_confidence=settings.min_confidence,
            min_face_presence_confidence=settings.min_confidence,
            output_face_blendshapes=True,
        )
        with silenced():
            self._landmarker = FaceLandmarker.create_from_options(options)
            self(np.zeros((64, 64, 3), dtype=np.uint8))

    def __call__(self, crop: UInt8[ndarray, "side side 3"]) -> Mesh | None:
        """Mesh of a letterboxed RGB crop, or None if there is no face in it."""
        found = self._landmarker.detect(image_of(crop))
        if not found.face_landmarks:
            return None
        points = np.array([(p.x, p.y, p.z) for p in found.face_landmarks[0]])
        shapes = np.array([shape.score for shape in found.face_blendshapes[0]])
        return Mesh(inner_lip_area(points[:, :2]), shapes, proportions(points))


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


def proportions(points: Float[ndarray, "points 3"]) -> Float[ndarray, " 45"]:
    """Distances between rigid points, as logarithms over their mean: alike for one person at any size and place."""
    distance = np.linalg.norm(points[FIRST] - points[SECOND], axis=1)
    return np.log(np.maximum(distance, 1e-6) / max(float(distance.mean()), 1e-6))


def _triangles(a: Float[ndarray, "n 2"], b: Float[ndarray, "n 2"], c: Float[ndarray, "n 2"]) -> Float[ndarray, " n"]:
    ab, ac = b - a, c - a
    return np.abs(ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]) / 2
