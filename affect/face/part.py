"""A track's face part: built from rows of clips, converted to and from tables."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float
from numpy import ndarray

from affect import timeline
from affect.face.mesh import MESH_NUMBERS
from affect.modality import Evidence
from affect.settings.names import EXPRESSIONS
from affect.storage import schema
from affect.storage.columns import array, list_column, matrix, nullable


@dataclass(frozen=True)
class FacePart:
    """The face of a track's person.

    Args:
        valid: whether the person's face was found and encoded.
        embedding: of the frame encoder; that of the nearest face at a frame without one, 0 in a track without faces.
        lip_area: inner-lip area in squared sides of the crop, NaN without a mesh.
    """

    valid: Bool[ndarray, " frames"]
    embedding: Float[ndarray, "frames D"]
    lip_area: Float[ndarray, " frames"]


def from_evidence(evidence: Evidence) -> FacePart:
    """Face part of a person's track."""
    num, faces = evidence.num_frames, evidence.tables["face"]
    valid, lip_area = np.zeros(num, dtype=bool), np.full(num, np.nan)
    width = array(pc.list_value_length(faces["embedding"]))
    by_mesh = evidence.run.face.encoder == "blendshapes"
    embedding = np.zeros((num, MESH_NUMBERS if by_mesh else int(width.max(initial=0))))
    rows = evidence.rows[array(faces["frame"])[evidence.rows] < num]
    lip_area[array(faces["frame"])[rows]] = nullable(faces.take(rows), "lip_area")[:, 0]
    rows = rows[width[rows] == embedding.shape[1]]  # an encoder of meshes has no embedding of a face without one
    if len(rows):
        table = faces.take(rows)
        frames = array(table["frame"])
        valid[frames] = True
        nearest = np.searchsorted(frames, timeline.nearest_valid(valid))
        embedding = matrix(table["embedding"])[nearest]
    return FacePart(valid, embedding, lip_area)


def ratings_from_evidence(evidence: Evidence) -> Float[ndarray, "frames K"]:
    """Valence, arousal, and expression logits (of a mesh encoder: its embedding) at each frame; NaN without."""
    num, faces = evidence.num_frames, evidence.tables["face"]
    table = faces.take(evidence.rows[array(faces["frame"])[evidence.rows] < num])
    by_mesh = evidence.run.face.encoder == "blendshapes"
    others = ("embedding", MESH_NUMBERS) if by_mesh else ("expression", len(EXPRESSIONS))
    values = np.concatenate([nullable(table, "valence", "arousal"), _padded(table[others[0]], others[1])], axis=1)
    ratings = np.full((num, values.shape[1]), np.nan)
    ratings[array(table["frame"])] = values
    return ratings


def _padded(column: pa.ChunkedArray, width: int) -> Float[ndarray, "rows width"]:
    """Rows of a column of lists; NaN for a null or empty one."""
    known = array(pc.fill_null(pc.list_value_length(column), 0)) == width
    values = np.full((len(column), width), np.nan)
    values[known] = matrix(column.filter(pa.array(known)), width)
    return values


def to_table(part: FacePart) -> pa.Table:
    """Table of a part for the store."""
    columns = {
        "frame": np.arange(len(part.valid)),
        "valid": part.valid,
        "embedding": list_column(part.embedding, pa.float32()),
        "lip_area": pa.array(part.lip_area, pa.float32(), from_pandas=True),
    }
    return pa.table(columns).cast(schema.TRACK["face"])


def from_table(table: pa.Table) -> FacePart:
    """Part from its table in the store."""
    return FacePart(array(table["valid"]), matrix(table["embedding"]), nullable(table, "lip_area")[:, 0])
