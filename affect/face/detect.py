"""Face detection in single pictures: MediaPipe or YOLO behind one interface.

Source: paper (arXiv 2603.13056), section 3.2; spec section 3.1.
"""

import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from affect import weights
from affect.device import default_device
from affect.settings.extraction import Face
from affect.storage import files

YOLO_SIDE_PX = 640
"""Longest side of YOLO's input in pixels; its checkpoints were trained at this size."""


class Boxes(NamedTuple):
    """Faces of one picture.

    Args:
        box: left, top, right, bottom as shares of the picture's width and height, within [0, 1].
        score: confidence of the detector, in [0, 1].
    """

    box: Float[ndarray, "faces 4"]
    score: Float[ndarray, " faces"]


Detector = Callable[[Sequence[ndarray]], list[Boxes]]
"""Maps RGB pictures (H, W, 3) to their faces; pictures do not affect each other."""


def load(settings: Face, device: str | None = None) -> Detector:
    """Loads the detector that the settings name.

    Args:
        settings: detector, weights, class and minimal confidence.
        device: ``cuda`` or ``cpu`` for YOLO; the available one if None. MediaPipe runs on the CPU.

    Raises:
        WeightsError: the weights cannot be fetched or read, or Ultralytics is not installed.
        ValueError: the checkpoint has no such class.
    """
    return Yolo(settings, device) if settings.detector == "yolo" else Mediapipe(settings)


class Mediapipe:
    """MediaPipe's short-range face detector, read from the face landmarker's file.

    Its input is 128 x 128 px: faces narrower than about a tenth of the picture are missed.

    Source: MediaPipe's Face Detector task (BlazeFace, arXiv 1907.05047).
    Differs: the paper detects with YOLO (AGPL-3.0). This detector is Apache-2.0 and part of the landmarker's file.
    """

    def __init__(self, settings: Face) -> None:
        """Loads the model."""
        from mediapipe.tasks.python import BaseOptions
        from mediapipe.tasks.python.vision import FaceDetector, FaceDetectorOptions

        without_finalizer(FaceDetector)
        with zipfile.ZipFile(weights.file(settings.landmarker)) as bundle:
            model = bundle.read("face_detector.tflite")
        options = FaceDetectorOptions(
            base_options=BaseOptions(model_asset_buffer=model), min_detection_confidence=settings.min_confidence
        )
        with stderr_silenced():
            self._detector = FaceDetector.create_from_options(options)
            self([np.zeros((64, 64, 3), dtype=np.uint8)])

    def __call__(self, pictures: Sequence[UInt8[ndarray, "_ _ 3"]]) -> list[Boxes]:
        """Detects the faces of each RGB picture."""
        return [self._detect_faces(picture) for picture in pictures]

    def _detect_faces(self, picture: UInt8[ndarray, "H W 3"]) -> Boxes:
        height, width = picture.shape[:2]
        found = self._detector.detect(mediapipe_image(picture)).detections
        corners = [(d.bounding_box.origin_x, d.bounding_box.origin_y) for d in found]
        sizes = [(d.bounding_box.width, d.bounding_box.height) for d in found]
        low, size = np.reshape(corners, (-1, 2)), np.reshape(sizes, (-1, 2))
        box = np.concatenate([low, low + size], axis=1) / [width, height, width, height]
        return Boxes(box.clip(0.0, 1.0), np.array([d.categories[0].score for d in found], dtype=np.float64))


class Yolo:
    """Ultralytics YOLO with a checkpoint of the user's choice and one of its classes, such as ``face``.

    Ultralytics and its checkpoints are AGPL-3.0, so they are an optional extra (``pip install 'affect[yolo]'``).

    Source: paper (arXiv 2603.13056), section 3.2; spec section 3.1; Ultralytics' documentation of ``predict``.
    """

    def __init__(self, settings: Face, device: str | None = None) -> None:
        """Loads the checkpoint. Ultralytics unpickles ``.pt`` files, so only an explicit local path is accepted."""
        path = weights.local_path(settings.yolo_weights)
        if not path.is_file():
            raise weights.WeightsError(f"{path}: no such file; name an Ultralytics checkpoint (--face.yolo-weights)")
        folder = files.cache() / "ultralytics"
        folder.mkdir(parents=True, exist_ok=True)
        quiet = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
        os.environ.update(quiet | {"YOLO_CONFIG_DIR": str(folder)})
        try:
            from ultralytics import YOLO
        except ImportError as error:
            raise weights.WeightsError("detector yolo: pip install 'affect[yolo]' (AGPL-3.0) first") from error
        try:
            self._model = YOLO(path)
        except (AttributeError, EOFError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise weights.WeightsError(f"{path} is no Ultralytics checkpoint: {error}") from error
        self._device = device or default_device()
        self._confidence = settings.min_confidence
        names = self._model.names
        classes = [number for number, name in names.items() if name == settings.yolo_class]
        if not classes:
            raise ValueError(f"{path} knows no class {settings.yolo_class!r}, only {', '.join(names.values())}")
        self._classes = classes

    def __call__(self, pictures: Sequence[UInt8[ndarray, "_ _ 3"]]) -> list[Boxes]:
        """Detects the faces of each RGB picture; one batch per run of equal sizes, so that nothing is padded."""
        return [boxes for _, same in groupby(pictures, key=np.shape) for boxes in self._detect_faces(list(same))]

    def _detect_faces(self, pictures: list[UInt8[ndarray, "H W 3"]]) -> list[Boxes]:
        found: Any = self._model.predict(
            [picture[..., ::-1] for picture in pictures],  # Ultralytics expects BGR
            conf=self._confidence,
            classes=self._classes,
            imgsz=YOLO_SIDE_PX,
            device=self._device,
            verbose=False,
            save=False,
        )
        boxes = [result.boxes.cpu().numpy() for result in found]
        return [Boxes(b.xyxyn.astype(np.float64).clip(0.0, 1.0), b.conf.astype(np.float64)) for b in boxes]


def mediapipe_image(picture: UInt8[ndarray, "H W 3"]) -> object:
    """Converts an RGB picture to a MediaPipe image."""
    import mediapipe

    return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture))


def without_finalizer(task: type) -> None:
    """Disables a MediaPipe task's finalizer, which fails at exit: the threads that it needs have ended by then."""
    task.__del__ = lambda self: None  # type: ignore[attr-defined]


@contextmanager
def stderr_silenced() -> Iterator[None]:
    """Hides stderr (file descriptor 2) while MediaPipe starts: its C++ code logs there. Its errors are exceptions."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
