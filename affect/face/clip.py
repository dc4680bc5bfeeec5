"""Faces of a clip: decode, detect, cut out, mesh, encode."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float, UInt8
from numpy import ndarray

from affect import weights
from affect.corpus import video
from affect.corpus.ahead import ahead
from affect.corpus.clip import Clip
from affect.face import appearance, detect
from affect.face.crop import grow, letterbox
from affect.face.detect import Boxes
from affect.face.grada import Encoder
from affect.face.mesh import Mesh, Mesher
from affect.settings.extraction import Face
from affect.storage import schema
from affect.storage.extracted import Extracted, Part, Save, keep_none

DECODED_AHEAD = 4
"""Pictures that are decoded while others are worked on."""
BATCH_PICTURES = 16
"""Pictures detected at once."""
PART_PICTURES = 64
"""Pictures after which a part of a clip is done, at least: some two seconds of video, two batches of the encoder."""
BATCH_BYTES = 64 * 2**20
"""The same in bytes: two 8K frames fill it."""


class Row(NamedTuple):
    """A face before it is encoded."""

    frame: int
    face: int
    box: Float[ndarray, " 4"]
    score: float
    crop: UInt8[ndarray, "side side 3"]
    mesh: Mesh | None
    colors: Float[ndarray, " D"]
    thumbnail: UInt8[ndarray, " P"]


class Finder:
    """Finds the faces of pictures, cuts them out and measures them, all but the encoder.

    Args:
        settings: detector, thresholds, sizes.
        device: as in :class:`FaceClip`.
    """

    def __init__(self, settings: Face, device: str | None = None) -> None:
        """Load detector and mesh."""
        self._settings = settings
        self._detect = detect.load(settings, device)
        self._mesh = Mesher(settings)

    def __call__(self, numbers: Sequence[int], pictures: Sequence[UInt8[ndarray, "_ _ 3"]]) -> tuple[list[Row], int]:
        """Rows of frames in order, each frame's from left to right, and how many frames show too many faces."""
        rows: list[Row] = []
        crowded = 0
        for frame, picture, found in zip(numbers, pictures, self._detect(pictures), strict=True):
            boxes = self._large_ones(found, picture)
            crowded += len(boxes.score) > self._settings.max_faces
            rows += self._rows(frame, picture, boxes)
        return rows, crowded

    def _large_ones(self, found: Boxes, picture: UInt8[ndarray, "H W 3"]) -> Boxes:
        """Grown boxes that are large enough, largest first."""
        box = grow(found.box, self._settings.box_growth)
        size = (box[:, 2:] - box[:, :2]) * [picture.shape[1], picture.shape[0]]
        large = size.max(axis=1, initial=0) >= self._settings.min_face_px
        order = np.argsort(-size.prod(axis=1)[large], kind="stable")
        return Boxes(box[large][order], found.score[large][order])

    def _rows(self, frame: int, picture: UInt8[ndarray, "H W 3"], boxes: Boxes) -> Iterator[Row]:
        """Rows of one picture's largest faces, from left to right."""
        if not len(boxes.score):
            return
        kept = slice(self._settings.max_faces)
        order = np.lexsort(boxes.box[kept].T[::-1])
        box, score = boxes.box[kept][order], boxes.score[kept][order]
        crops = letterbox(picture, box, self._settings.crop_px)
        same = self._settings.mesh_px == self._settings.crop_px
        meshed = crops if same else letterbox(picture, box, self._settings.mesh_px)
        whole = appearance.thumbnail(picture)
        for face in range(len(box)):
            look, mesh = appearance.colors(picture, box[face]), self._mesh(meshed[face])
            yield Row(frame, face, box[face], float(score[face]), crops[face], mesh, look, whole)


class FaceClip:
    """Turns a clip into one row per frame and visible face.

    Args:
        settings: weights, thresholds, sizes.
        device: ``cuda`` or ``cpu``; the one at hand if not given.
    """

    def __init__(self, settings: Face, device: str | None = None) -> None:
        """Load detector, mesh and encoder."""
        self._settings = settings
        self._find = Finder(settings, device)
        self._encode = Encoder(weights.folder(settings.weights), settings, device) if settings.weights else None

    def __call__(self, clip: Clip, begun: Part | None = None, save: Save = keep_none) -> Extracted:
        """Extract a clip.

        Args:
            clip: the clip.
            begun: a part of it that is done; none if not given.
            save: hears of every part of about :data:`PART_PICTURES` frames.

        Raises:
            MediaError: the video cannot be opened.
        """
        first, last = clip.frames
        size, max_faces = self._settings.micro_batch, self._settings.max_faces
        part_pictures, since = max(PART_PICTURES, 2 * size), 0
        decoded, crowded, seen = begun.counts.values() if begun else (0, 0, 0)
        rows: list[Row] = []
        parts = [begun.table if begun else schema.FACE.empty_table()]
        start = begun.last + 1 if begun else first
        frames = ahead(video.decode(clip.uri, clip.probe, start, last), DECODED_AHEAD)
        for numbers, pictures in _batches(frames):
            found, too_many = self._find(numbers, pictures)
            rows += found
            decoded, crowded, seen = decoded + len(numbers), crowded + too_many, seen + len(found)
            while len(rows) >= size:
                parts.append(self._table(clip, rows[:size]))
                rows = rows[size:]
            since += len(numbers)
            if since >= part_pictures:  # no batch reaches past a part, so that going on from it gives the same numbers
                if rows:
                    parts.append(self._table(clip, rows))
                rows, since = [], 0
                share = (numbers[-1] + 1 - first) / (last - first)
                counts = {"decoded": decoded, "crowded": crowded, "seen": seen}
                save(Part(pa.concat_tables(parts), numbers[-1], share, counts))
        if rows:
            parts.append(self._table(clip, rows))
        table = pa.concat_tables(parts)
        if decoded == 0 and last > first:
            return Extracted(table, "failed", "not one frame can be decoded")
        reasons = []
        if decoded < last - first:
            reasons.append(f"{last - first - decoded} of {last - first} frames cannot be decoded")
        if crowded:
            reasons.append(f"{crowded} frames show more than {max_faces} faces, the largest are kept")
        if spoilt := seen - table.num_rows:
            reasons.append(f"answers for {spoilt} of {seen} faces are not finite")
        if seen == 0 and decoded:
            reasons.append("no face found")
        return Extracted(table, "degraded", ", ".join(reasons)) if reasons else Extracted(table)

    def _table(self, clip: Clip, rows: list[Row]) -> pa.Table:
        answers: dict[str, Any] = {name: [None] * len(rows) for name in ("valence", "arousal", "expression")}
        answers["embedding"] = [[]] * len(rows)
        if self._encode:
            embedding, expression, affect = self._encode(np.stack([row.crop for row in rows]))
            finite = np.all([np.isfinite(answer).all(axis=1) for answer in (embedding, expression, affect)], axis=0)
            rows = [row for row, kept in zip(rows, finite, strict=True) if kept]
            answers = {"valence": affect[finite, 0], "arousal": affect[finite, 1]}
            answers |= {"expression": list(expression[finite]), "embedding": list(embedding[finite])}
        frames = [row.frame for row in rows]
        columns = {
            "frame": frames,
            "time_s": clip.probe.time_s[frames],
            "face": [row.face for row in rows],
            "box": [list(row.box) for row in rows],
            "score": [row.score for row in rows],
            **answers,
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
    """Frame numbers and pictures, as many at once as memory bears."""
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
