"""A track's face part: built from rows of clips, converted to and from tables."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float
from numpy import ndarray

from affect import timeline
from affect.modality import Evidence
from affect.storage import schema
from affect.storage.columns import array, list_column, matrix, nullable


@dataclass(frozen=True)
class FacePart:
    """The face of a track's person.

    Args:
        valid: whether the person's face was found.
        embedding: GRADA embedding; that of the nearest face at a frame without one, 0 in a track without faces.
        lip_area: inner-lip area in squared sides of the crop, NaN without a mesh.
    """

    valid: Bool[ndarray, " frames"]
    embedding: Float[ndarray, "frames D"]
    lip_area: Float[ndarray, " frames"]


def from_evidence(evidence: Evidence) -> FacePart:
    """Face part of a person's track."""
    num, faces = evidence.num_frames, evidence.tables["face"]
    valid, lip_area = np.zeros(num, dtype=bool), np.full(num, np.nan)
    embedding = np.zeros((num, matrix(faces["embedding"]).shape[1]))
    rows = evidence.rows[array(faces["frame"])[evidence.rows] < num]
    if len(rows):
        table = faces.take(rows)
        frames = array(table["frame"])
        valid[frames] = True
        lip_area[frames] = array(table["lip_area"])
        nearest = np.searchsorted(frames, timeline.nearest_valid(valid))
        embedding = matrix(table["embedding"])[nearest]
    return FacePart(valid, embedding, lip_area)


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
