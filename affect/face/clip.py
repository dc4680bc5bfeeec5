"""Faces of a clip, one row per frame and face: decode, detect, crop, mesh, encode.

Source: paper (arXiv 2603.13056), section 3.2; spec sections 3.1 to 3.3.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float, UInt8
from numpy import ndarray

from affect.corpus import video
from affect.corpus.clip import Clip
from affect.corpus.prefetch import prefetch
from affect.device import default_device
from affect.face import appearance, detect, encoding
from affect.face.crop import Crop, grow
from affect.face.detect import Boxes
from affect.face.encoding import Encoding
from affect.face.mesh import Mesh, Mesher
from affect.settings.extraction import Face
from affect.storage import schema
from affect.storage.extracted import Extracted, Part, Save, discard_part

DECODED_AHEAD = 4
"""Pictures decoded in a thread ahead of the detector."""
BATCH_PICTURES = 16
"""Most pictures in one detector batch."""
PART_PICTURES = 64
"""Fewest pictures of a saved part of a clip: about two seconds of video, two encoder batches."""
BATCH_BYTES = 64 * 2**20
"""Most bytes of pictures in one detector batch: two 8K frames."""


class Row(NamedTuple):
    """One face before encoding.

    Args:
        frame: frame number in the video.
        face: number of the face in its frame, from the left.
        box: left, top, right, bottom as shares of the picture.
        score: confidence of the detector.
        crop: crop for the encoder; empty if it reads none.
        mesh: mesh measurements; None if no mesh was found.
        colors: colour histograms of face and shoulders.
        thumbnail: thumbnail of the picture.
    """

    frame: int
    face: int
    box: Float[ndarray, " 4"]
    score: float
    crop: UInt8[ndarray, "side side 3"]
    mesh: Mesh | None
    colors: Float[ndarray, " D"]
    thumbnail: UInt8[ndarray, " P"]


class Finder:
    """Detects the faces of pictures, crops them and computes mesh and appearance: all steps before the encoder.

    Args:
        settings: detector, thresholds, sizes.
        crop: crop that the encoder reads; None for none.
        device: as in :class:`FaceClip`.
    """

    def __init__(self, settings: Face, crop: Crop | None, device: str | None = None) -> None:
        """Loads detector and landmarker."""
        self._settings, self._crop = settings, crop
        self._detect = detect.load(settings, device)
        self._mesh = Mesher(settings)

    def __call__(self, numbers: Sequence[int], pictures: Sequence[UInt8[ndarray, "_ _ 3"]]) -> tuple[list[Row], int]:
        """Returns rows by frame and from left to right, and the number of frames with more than ``max_faces``."""
        rows: list[Row] = []
        crowded = 0
        for frame, picture, detected in zip(numbers, pictures, self._detect(pictures), strict=True):
            boxes = self._large_boxes(detected, picture)
            crowded += len(boxes.score) > self._settings.max_faces
            rows += self._rows(frame, picture, boxes)
        return rows, crowded

    def _large_boxes(self, boxes: Boxes, picture: UInt8[ndarray, "H W 3"]) -> Boxes:
        """Drops boxes that are below ``min_face_px`` after growth; largest first."""
        box = grow(boxes.box, self._settings.box_growth)
        size = (box[:, 2:] - box[:, :2]) * [picture.shape[1], picture.shape[0]]
        large = size.max(axis=1, initial=0) >= self._settings.min_face_px
        order = np.argsort(-size.prod(axis=1)[large], kind="stable")
        return Boxes(boxes.box[large][order], boxes.score[large][order])

    def _rows(self, frame: int, picture: UInt8[ndarray, "H W 3"], boxes: Boxes) -> Iterator[Row]:
        """Yields the rows of a picture's ``max_faces`` largest faces, from left to right."""
        if not len(boxes.score):
            return
        kept = slice(self._settings.max_faces)
        grown = grow(boxes.box[kept], self._settings.box_growth)
        order = np.lexsort(grown.T[::-1])
        box, score = grown[order], boxes.score[kept][order]
        mesh_crop = Crop(self._settings.mesh_px)
        mesh_crops = mesh_crop(picture, boxes.box[kept][order], box)
        crops = np.empty((len(box), 0, 0, 3), dtype=np.uint8)
        if self._crop is not None:
            same = self._crop == mesh_crop
            crops = mesh_crops if same else self._crop(picture, boxes.box[kept][order], box)
        thumbnail = appearance.thumbnail(picture)
        for face in range(len(box)):
            colors, mesh = appearance.colors(picture, box[face]), self._mesh(mesh_crops[face])
            yield Row(frame, face, box[face], float(score[face]), crops[face], mesh, colors, thumbnail)


class FaceClip:
    """Extracts one row per frame and face of a clip.

    Args:
        settings: weights, thresholds, sizes.
        device: ``cuda`` or ``cpu``; the available one if None.
    """

    def __init__(self, settings: Face, device: str | None = None) -> None:
        """Loads detector, landmarker and encoder."""
        self._settings, self._size = settings, settings.batch_size(device or default_device())
        self._encode = encoding.load(settings, device)
        self._find = Finder(settings, self._encode.crop if self._encode else None, device)

    def __call__(self, clip: Clip, partial: Part | None = None, save: Save = discard_part) -> Extracted:
        """Extracts a clip.

        Args:
            clip: the clip.
            partial: saved part of the clip to continue from; None to start at its first frame.
            save: called with all results so far after every :data:`PART_PICTURES` frames or more.

        Raises:
            MediaError: the video cannot be opened.
        """
        first, last = clip.frames
        size = self._size
        part_pictures, since_saved = max(PART_PICTURES, 2 * size), 0
        decoded, crowded, detected = partial.counts.values() if partial else (0, 0, 0)
        rows: list[Row] = []
        tables = [partial.table if partial else schema.FACE.empty_table()]
        start = partial.last + 1 if partial else first
        frames = prefetch(video.decode(clip.uri, clip.probe, start, last), DECODED_AHEAD, counted=True)
        for numbers, pictures in _batches(frames):
            new_rows, num_crowded = self._find(numbers, pictures)
            rows += new_rows
            decoded, crowded, detected = decoded + len(numbers), crowded + num_crowded, detected + len(new_rows)
            while len(rows) >= size:
                tables.append(self._table(clip, rows[:size]))
                rows = rows[size:]
            since_saved += len(numbers)
            # No encoder batch crosses the end of a part: a resumed clip has the same batches and the same numbers.
            if since_saved >= part_pictures:
                if rows:
                    tables.append(self._table(clip, rows))
                rows, since_saved = [], 0
                share = (numbers[-1] + 1 - first) / (last - first)
                counts = {"decoded": decoded, "crowded": crowded, "seen": detected}
                save(Part(pa.concat_tables(tables), numbers[-1], share, counts))
        if rows:
            tables.append(self._table(clip, rows))
        return self._with_status(pa.concat_tables(tables), last - first, decoded, crowded, detected)

    def _with_status(self, table: pa.Table, num_frames: int, decoded: int, crowded: int, detected: int) -> Extracted:
        """Adds status and reason: failed if no frame was decoded, degraded if anything is missing."""
        if decoded == 0 and num_frames > 0:
            return Extracted(table, "failed", "not one frame can be decoded")
        reasons = []
        if decoded < num_frames:
            reasons.append(f"{num_frames - decoded} of {num_frames} frames cannot be decoded")
        if crowded:
            reasons.append(f"{crowded} frames show more than {self._settings.max_faces} faces, the largest are kept")
        if num_not_finite := detected - table.num_rows:
            reasons.append(f"answers for {num_not_finite} of {detected} faces are not finite")
        if detected == 0 and decoded:
            reasons.append("no face found")
        return Extracted(table, "degraded", ", ".join(reasons)) if reasons else Extracted(table)

    def _table(self, clip: Clip, rows: list[Row]) -> pa.Table:
        """Encodes rows; those with an output that is not finite are left out."""
        encoded = Encoding(np.empty((len(rows), 0)))
        if self._encode:
            encoded = self._encode(np.stack([row.crop for row in rows]), [row.mesh for row in rows])
            if self._encode.crop is not None:
                kept = encoded.finite(self._encode.known)
                rows, encoded = [row for row, keep in zip(rows, kept, strict=True) if keep], encoded.take(kept)
        embedding, expression, affect = encoded
        nothing = [None] * len(rows)
        frames = [row.frame for row in rows]
        columns = {
            "frame": frames,
            "time_s": clip.probe.time_s[frames],
            "face": [row.face for row in rows],
            "box": [list(row.box) for row in rows],
            "score": [row.score for row in rows],
            "embedding": [vector if np.isfinite(vector).all() else [] for vector in embedding],
            "valence": nothing if affect is None else affect[:, 0],
            "arousal": nothing if affect is None else affect[:, 1],
            "expression": nothing if expression is None else list(expression),
            "lip_area": [row.mesh and row.mesh.lip_area for row in rows],
            "blendshapes": [row.mesh and list(row.mesh.blendshapes) for row in rows],
            "colors": [row.colors.astype(np.float16) for row in rows],
            "shape": [row.mesh and list(row.mesh.shape) for row in rows],
            "thumbnail": [row.thumbnail for row in rows],
        }
        return pa.table(columns, schema=schema.FACE)


def _batches(
    frames: Iterable[tuple[int, UInt8[ndarray, "H W 3"]]],
) -> Iterator[tuple[list[int], list[UInt8[ndarray, "H W 3"]]]]:
    """Batches of frame numbers and pictures within :data:`BATCH_PICTURES` and :data:`BATCH_BYTES`."""
    numbers: list[int] = []
    pictures: list[ndarray] = []
    for number, picture in frames:
        numbers.append(number)
        pictures.append(picture)
        if len(pictures) == BATCH_PICTURES or picture.nbytes * (len(pictures) + 1) > BATCH_BYTES:
            yield numbers, pictures
            numbers, pictures = [], []
    if pictures:
        yield numbers, pictures
