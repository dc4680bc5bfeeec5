"""Faces of a clip: decode, detect, cut out, encode."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy import ndarray

from affect import schema, weights
from affect.config import Face
from affect.corpus import video
from affect.corpus.clip import Clip, Extracted
from affect.face.detect import Detection, Landmarker
from affect.face.grada import Encoder, letterbox

Row = tuple[int, int, Detection, ndarray]


class FaceClip:
    """Turns a clip into one row per frame and visible face.

    Args:
        settings: weights, thresholds, sizes.
    """

    def __init__(self, settings: Face) -> None:
        """Load detector and encoder."""
        self._settings = settings
        self._detect = Landmarker(weights.file(settings.landmarker), settings)
        self._encode = Encoder(weights.folder(settings.weights), settings)

    def __call__(self, clip: Clip) -> Extracted:
        """Extract a clip.

        Raises:
            MediaError: the video cannot be opened.
        """
        first, last = clip.frames
        decoded = 0
        rows: list[Row] = []
        parts: list[pa.Table] = []
        for frame, picture in video.decode(clip.uri, clip.probe, first, last):
            decoded += 1
            rows += self._faces(frame, picture)
            while len(rows) >= self._settings.micro_batch:
                parts.append(self._table(clip, rows[: self._settings.micro_batch]))
                rows = rows[self._settings.micro_batch :]
        if rows:
            parts.append(self._table(clip, rows))
        table = pa.concat_tables(parts) if parts else schema.FACE.empty_table()
        if decoded == 0 and last > first:
            return Extracted(table, "failed", "not one frame can be decoded")
        if decoded < last - first:
            return Extracted(table, "degraded", f"{last - first - decoded} of {last - first} frames cannot be decoded")
        if table.num_rows == 0 and decoded:
            return Extracted(table, "degraded", "no face found")
        return Extracted(table)

    def _faces(self, frame: int, picture: ndarray) -> Iterator[Row]:
        for face, found in enumerate(self._detect(picture)):
            yield frame, face, found, letterbox(picture, found.box, self._settings.crop_px)

    def _table(self, clip: Clip, rows: list[Row]) -> pa.Table:
        frames, faces, found, crops = zip(*rows, strict=True)
        embedding, expression, affect = self._encode(np.stack(crops))
        columns = {
            "frame": frames,
            "time_s": clip.probe.time_s[list(frames)],
            "face": faces,
            "box": [list(f.box) for f in found],
            "score": [f.score for f in found],
            "embedding": list(embedding),
            "valence": affect[:, 0],
            "arousal": affect[:, 1],
            "expression": list(expression),
            "lip_area": [f.lip_area for f in found],
            "blendshapes": [None if f.blendshapes is None else list(f.blendshapes) for f in found],
        }
        return pa.table(columns, schema=schema.FACE)
