"""Extracted features of a video: rows of its clips concatenated, faces grouped into persons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from affect.corpus.probe import Probe
from affect.face.appearance import THUMBNAIL
from affect.face.mesh import FIRST
from affect.face.tracks import Faces, Person, persons
from affect.modalities import MODALITIES
from affect.plan.clips import Video, keys_of, load_probe
from affect.settings.run import Run
from affect.storage.columns import array, matrix
from affect.storage.extracted import Extracted
from affect.storage.store import Store


@dataclass(frozen=True)
class Features:
    """Extracted features of one video.

    Args:
        probe: probe of the video.
        faces: faces of all frames.
        persons: persons, from left to right.
        tables: rows by modality, the face's in the order of ``faces``; empty for a modality that is not extracted.
        reasons: reasons of failed and degraded clips.
        failed: whether all clips of all modalities failed.
    """

    probe: Probe
    faces: Faces
    persons: list[Person]
    tables: Mapping[str, pa.Table]
    reasons: list[str]
    failed: bool


def load_features(video: Video, run: Run, where: Mapping[str, str], store: Store) -> Features:
    """Reads and concatenates the clips of a video.

    Raises:
        FileNotFoundError: a clip has not been extracted.
    """
    tables = {name: modality.rows.empty_table() for name, modality in MODALITIES.items()}
    found, broken = [], []
    for modality in where:
        tables[modality], parts = load_table(video, run, where, modality, store)
        found += [(modality, part) for part in parts]
        if removed := sum(part.table.num_rows for part in parts) - tables[modality].num_rows:
            broken.append(f"{modality}: {removed} rows are not finite numbers, left out")
    reasons = sorted({f"{modality}: {part.reason}" for modality, part in found if part.status != "ok"}) + broken
    failed = all(part.status == "failed" for _, part in found)
    faces, tables["face"], people = find_persons(tables["face"], run)
    return Features(load_probe(store, video.probe_key), faces, people, tables, reasons, failed)


def find_persons(table: pa.Table, run: Run) -> tuple[Faces, pa.Table, list[Person]]:
    """Faces of a video, its rows in the same order, and the persons that tracking finds."""
    table = table.sort_by([("frame", "ascending"), ("face", "ascending")])
    faces = faces_of(table)
    return faces, table, persons(faces, run.tracking)


def load_table(
    video: Video, run: Run, where: Mapping[str, str], modality: str, store: Store
) -> tuple[pa.Table, list[Extracted]]:
    """Reads the finite rows of one modality from all clips of a video, and the clips.

    Raises:
        FileNotFoundError: a clip has not been extracted.
    """
    parts = [store.get(key) for key in keys_of(video, run, where, modality)]
    tables = [part.table.replace_schema_metadata() for part in parts]
    joined = pa.concat_tables(tables, promote_options="default")  # a clip without rows lacks optional columns
    return _of_finite_numbers(joined, MODALITIES[modality].finite), parts


def _of_finite_numbers(table: pa.Table, names: Sequence[str]) -> pa.Table:
    if all(_is_finite(table[name]) for name in names):
        return table
    finite = [all(_is_finite(table[name].slice(row, 1)) for name in names) for row in range(table.num_rows)]
    return table.filter(pa.array(finite, pa.bool_()))


def _is_finite(column: pa.ChunkedArray) -> bool:
    values = column.combine_chunks().drop_null()
    while pa.types.is_list(values.type):
        values = values.flatten()
    return bool(np.isfinite(values.to_numpy(zero_copy_only=False)).all())


def faces_of(table: pa.Table) -> Faces:
    """Faces of a video, from its sorted rows of :data:`affect.storage.schema.FACE`."""
    num = table.num_rows
    meshed = table["shape"].is_valid().to_numpy(zero_copy_only=False)
    proportions = np.full((num, len(FIRST)), np.nan)
    proportions[meshed] = matrix(table["shape"].drop_null(), len(FIRST))
    return Faces(
        frame=array(table["frame"]),
        time_s=array(table["time_s"]),
        box=matrix(table["box"], 4).astype(np.float64),
        score=array(table["score"]).astype(np.float64),
        colors=matrix(table["colors"]),
        shape=proportions,
        thumbnail=matrix(table["thumbnail"], 3 * THUMBNAIL**2),
    )
