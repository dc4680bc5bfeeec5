"""Every visible face of a picture, without state: box, mouth and blendshapes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from affect.config import Face
from affect.face.mesh import inner_lip_area


class Detection(NamedTuple):
    """One face of one picture.

    Args:
        box: left, top, right, bottom as shares of the picture's width and height, grown, within [0, 1].
        score: the detector's confidence, or None where it gives none.
        lip_area: inner-lip area in squared sides of the letterboxed crop, or None without a mesh.
        blendshapes: 52 coefficients in [0, 1], or None without a mesh.
    """

    box: Float[ndarray, " 4"]
    score: float | None
    lip_area: float | None
    blendshapes: Float[ndarray, " 52"] | None


class Landmarker:
    """MediaPipe's face landmarker on single pictures: 478 points a face, its box around them.

    Args:
        model: the ``.task`` file.
        settings: thresholds and the number of faces.

    Differs: the paper detects with YOLO and meshes the crop. Here one model does both on the whole picture, its points
    are then read in the crop's coordinates; it needs no download that forbids commercial use.
    """

    def __init__(self, model: Path, settings: Face) -> None:
        """Load the model."""
        from mediapipe.tasks.python import BaseOptions
        from mediapipe.tasks.python.vision import FaceLandmarker, FaceLandmarkerOptions

        # Its finalizer needs threads that are gone when the interpreter comes down; the process' end frees it as well.
        FaceLandmarker.__del__ = lambda self: None
        self._growth = settings.box_growth
        options = FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(model)),
            num_faces=settings.max_faces,
            min_face_detection_confidence=settings.min_confidence,
            min_face_presence_confidence=settings.min_confidence,
            output_face_blendshapes=True,
        )
        with _silenced():
            self._landmarker = FaceLandmarker.create_from_options(options)
            self(np.zeros((64, 64, 3), dtype=np.uint8))

    def __call__(self, picture: UInt8[ndarray, "H W 3"]) -> list[Detection]:
        """Detect the faces of one RGB picture, from left to right."""
        import mediapipe

        height, width = picture.shape[:2]
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
        result = self._landmarker.detect(image)
        found = []
        for landmarks, shapes in zip(result.face_landmarks, result.face_blendshapes, strict=True):
            points = np.array([(p.x, p.y) for p in landmarks])
            box = grow(np.concatenate([points.min(axis=0), points.max(axis=0)]), self._growth)
            side = max((box[2] - box[0]) * width, (box[3] - box[1]) * height)
            if side < 1:
                continue
            area = inner_lip_area(points * [width, height] / side)
            found.append(Detection(box, None, area, np.array([shape.score for shape in shapes])))
        return sorted(found, key=lambda face: tuple(face.box))


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep what MediaPipe's C++ part writes to stderr when it starts (its errors are raised) out of job logs."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def grow(box: Float[ndarray, " 4"], share: float) -> Float[ndarray, " 4"]:
    """Grow a box by a share of its width and height on each side, clipped to the picture."""
    size = box[2:] - box[:2]
    return np.clip(np.concatenate([box[:2] - share * size, box[2:] + share * size]), 0, 1)
