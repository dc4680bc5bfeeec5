"""Face mesh of a crop: inner-lip area, expression coefficients, and proportions of the face.

Source: paper (arXiv 2603.13056), section 3.4 (audio filter); spec section 5.2; point indices of MediaPipe's face mesh.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from scipy.spatial.transform import Rotation

from affect import weights
from affect.face.detect import mediapipe_image, stderr_silenced, without_finalizer
from affect.settings.extraction import Face

UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
"""Inner edge of the upper lip, from corner to corner."""
LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
"""Inner edge of the lower lip, from corner to corner."""
RIGID = (33, 133, 362, 263, 168, 1, 98, 327, 234, 454)
"""Points that expressions hardly move: eye corners, bridge, tip and wings of the nose, sides of the face."""
FIRST, SECOND = (list(ends) for ends in zip(*combinations(RIGID, 2), strict=True))
"""Both ends of each of the 45 pairs of rigid points."""

MESH_NUMBERS = 56
"""Width of the embedding of an encoder that reads the mesh alone: 52 coefficients, 3 angles, 1 area."""


class Mesh(NamedTuple):
    """Measurements of one crop's mesh.

    Args:
        lip_area: inner-lip area in squared sides of the crop, >= 0.
        blendshapes: 52 expression coefficients in [0, 1].
        shape: proportions of the face, from :func:`proportions`.
        pose: pitch, yaw and roll of the head in radians; NaN if they are not computed.
    """

    lip_area: float
    blendshapes: Float[ndarray, " 52"]
    shape: Float[ndarray, " 45"]
    pose: Float[ndarray, " 3"] = np.full(3, np.nan)


class Mesher:
    """Runs MediaPipe's face landmarker (478 points) on single crops, without state between them.

    Args:
        settings: model file and minimal confidence.

    Source: MediaPipe's Face Landmarker task, image mode.
    """

    def __init__(self, settings: Face) -> None:
        """Loads the model."""
        from mediapipe.tasks.python import BaseOptions
        from mediapipe.tasks.python.vision import FaceLandmarker, FaceLandmarkerOptions

        without_finalizer(FaceLandmarker)
        options = FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(weights.file(settings.landmarker))),
            num_faces=1,
            min_face_detection_confidence=settings.min_confidence,
            min_face_presence_confidence=settings.min_confidence,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=settings.encoder == "blendshapes",
        )
        with stderr_silenced():
            self._landmarker = FaceLandmarker.create_from_options(options)
            self(np.zeros((64, 64, 3), dtype=np.uint8))

    def __call__(self, crop: UInt8[ndarray, "side side 3"]) -> Mesh | None:
        """Measures a letterboxed RGB crop; None if no face is found in it."""
        result = self._landmarker.detect(mediapipe_image(crop))
        if not result.face_landmarks:
            return None
        points = np.array([(p.x, p.y, p.z) for p in result.face_landmarks[0]])
        shapes = np.array([shape.score for shape in result.face_blendshapes[0]])
        measured = Mesh(inner_lip_area(points[:, :2]), shapes, proportions(points))
        found = result.facial_transformation_matrixes
        return measured._replace(pose=head_pose(np.asarray(found[0]))) if found else measured


def inner_lip_area(points: Float[ndarray, "points 2"]) -> float:
    """Area between the inner lips as the sum of 20 triangles.

        area = sum over i = 0 .. 9 of |U_i L_i U_(i+1)| + |L_(i+1) L_i U_(i+1)|

    U and L are the points of :data:`UPPER` and :data:`LOWER`; |a b c| is the area of a triangle (shoelace formula).

    Args:
        points: the mesh in 2-D coordinates normalised to the crop.

    Returns:
        Area in squared sides of the crop, >= 0.

    Source: paper (arXiv 2603.13056), section 3.4; spec section 5.2.
    Differs: the authors' crops are aligned and 112 px; here the coordinates are those of the letterboxed crop.
    """
    upper, lower = points[list(UPPER)], points[list(LOWER)]
    first = _triangles(upper[:-1], lower[:-1], upper[1:])
    second = _triangles(lower[1:], lower[:-1], upper[1:])
    return float((first + second).sum())


def head_pose(transformation: Float[ndarray, "4 4"]) -> Float[ndarray, " 3"]:
    """Pitch, yaw and roll of a head in radians: angles about the x, y and z axes of the camera, applied in this order.

    Args:
        transformation: from the canonical face to the camera, in MediaPipe's coordinates: x right, y up, z to the
            camera.
    """
    return Rotation.from_matrix(transformation[:3, :3]).as_euler("xyz")


def proportions(points: Float[ndarray, "points 3"]) -> Float[ndarray, " 45"]:
    """Log distances between rigid points, relative to their mean; independent of the face's size and place.

    p_ij = log(|x_i - x_j| / mean over all pairs of |x_k - x_l|)
    """
    distance = np.linalg.norm(points[FIRST] - points[SECOND], axis=1)
    return np.log(np.maximum(distance, 1e-6) / max(float(distance.mean()), 1e-6))


def _triangles(a: Float[ndarray, "n 2"], b: Float[ndarray, "n 2"], c: Float[ndarray, "n 2"]) -> Float[ndarray, " n"]:
    ab, ac = b - a, c - a
    return np.abs(ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]) / 2
