"""Tables of predictions: one row per frame and person, and one per video.

OUT/<video>.parquet, <video>.csv      one row per frame and person
OUT/videos.csv                        one row per video: status, people, reason

A table's metadata holds the address of all its inputs: a video whose address is unchanged is skipped.
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from jaxtyping import Float
from numpy import ndarray

from affect.corpus.track import Track
from affect.modalities import MODALITIES, SYSTEMS
from affect.storage import files, schema
from affect.storage.store import encode, read_table

SUMMARY = "videos"
"""Name of the table of videos and their outcomes."""
_METADATA = b"affect"
UNANSWERED = "the model's answer is not a finite number"


def predictions_schema() -> pa.Schema:
    """Columns of a table of predictions, for all modalities and systems."""
    return schema.predictions(MODALITIES, SYSTEMS)


def known_outcome(path: str, mark: str) -> dict[str, Any] | None:
    """Outcome of a video already predicted from the same inputs; None if there is none."""
    try:
        note = pq.read_schema(io.BytesIO(files.read(path))).metadata or {}
        known = json.loads(note.get(_METADATA, b"{}"))
        return dict(known["outcome"]) if known.get("mark") == mark else None
    except (
        OSError,
        pa.ArrowException,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # no table, or not one of predictions
        return None


def encode_predictions(table: pa.Table, mark: str, outcome: Mapping[str, Any]) -> bytes:
    """A video's table as Parquet, with the address of its inputs and its outcome in the metadata."""
    note = json.dumps({"mark": mark, "outcome": outcome}).encode()
    return encode(table.replace_schema_metadata({_METADATA: note}))


def prediction_table(
    track: Track,
    answers: Mapping[str, ndarray],
    evidence: Sequence[str],
    spread: ndarray,
    trust: Mapping[str, ndarray],
    boxes: Float[ndarray, "frames 4"],
) -> pa.Table:
    """Predictions of one person, one row per frame.

    Args:
        track: track with the outputs of its unimodal models.
        answers: predictions (frames, 2) by system, NaN without any evidence of the person; the last is the main system.
        evidence: modalities of the main system's evidence; a frame where none of them is valid is not valid.
        spread: half the range of the main system's overlapping windows.
        trust: weight of each modality in the main system's gates.
        boxes: face boxes, NaN where the face is not found.
    """
    seen = {m: series.valid for m, series in track.series.items()}
    valid: ndarray = np.any([seen[m] for m in evidence], axis=0)
    num = track.num_frames
    nothing = pa.nulls(num, pa.float32())
    # values that are not finite stay so, and become null
    answers = {s: np.where(np.isfinite(a), np.clip(a, -1, 1), np.nan) for s, a in answers.items()}
    main = list(answers.values())[-1]
    answered = ~np.isnan(main).any(axis=1)
    why = {
        m: ["" if ok else reason for ok, reason in zip(valid_m, MODALITIES[m].reasons(track), strict=True)]
        for m, valid_m in seen.items()
    }
    parts = [[f"{m}: {reason}" if reason else "" for reason in of] for m, of in why.items()]
    parts.append(np.where(valid & ~answered, UNANSWERED, "").tolist())
    columns: dict[str, Any] = {
        "video": [track.video] * num,
        "person": [track.person] * num,
        "track": [track.name] * num,
        "frame": np.arange(num),
        "time_s": track.time_s,
        "valence": _nullable(main[:, 0]),
        "arousal": _nullable(main[:, 1]),
        **{f"{name}_spread": _nullable(spread[:, i]) for i, name in enumerate(("valence", "arousal"))},
        "valid": valid & answered,
        "reason": ["; ".join(filter(None, row)) for row in zip(*parts, strict=True)],
    }
    for system in SYSTEMS:
        for i, name in enumerate(("valence", "arousal")):
            columns[f"{system}_{name}"] = _nullable(answers[system][:, i]) if system in answers else nothing
    for modality in MODALITIES:
        columns[f"{modality}_valid"] = seen.get(modality, pa.nulls(num, pa.bool_()))
        columns[f"{modality}_reason"] = why.get(modality, pa.nulls(num, pa.string()))
        columns[f"{modality}_trust"] = _nullable(trust[modality]) if modality in trust else nothing
    columns |= {f"face_{side}": _nullable(boxes[:, i]) for i, side in enumerate(schema.SIDES)}
    rows = predictions_schema()
    return pa.table(columns).select(rows.names).cast(rows)


def _nullable(values: ndarray) -> pa.Array:
    """A column in which values that are not finite are null."""
    return pa.array(values, mask=~np.isfinite(values))


def read_predictions(uri: str) -> pa.Table:
    """Reads the predictions of a video; columns that an earlier version did not write are null.

    Raises:
        FileNotFoundError: the video has no predictions.
    """
    table, rows = read_table(uri), predictions_schema()
    for missing in (field for field in rows if field.name not in table.schema.names):
        table = table.append_column(missing, pa.nulls(table.num_rows, missing.type))
    return table.select(rows.names)


def read_outcomes(out: str) -> list[dict[str, Any]]:
    """Reads the outcomes of all videos of a folder of predictions, from its ``videos.csv``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a table of outcomes.
    """
    uri = files.join(out, f"{SUMMARY}.csv")
    kinds = pa.csv.ConvertOptions(column_types=schema.OUTCOMES, null_values=[])
    lines = pa.csv.ParseOptions(newlines_in_values=True)  # names and reasons may contain them
    try:
        found = pa.csv.read_csv(io.BytesIO(files.read(uri)), parse_options=lines, convert_options=kinds)
        rows: list[dict[str, Any]] = found.select(schema.OUTCOMES.names).to_pylist()
    except (KeyError, pa.ArrowException) as error:
        raise ValueError(f"{uri}: no table of outcomes ({error}); delete it and predict again") from error
    if odd := [row["video"] for row in rows if "/" in row["video"] or row["video"] in ("", ".", "..")]:
        raise ValueError(f"{uri}: {odd[0]!r} is no name of a video")
    return rows


def earlier_outcomes(out: str, models: Mapping[str, str]) -> list[dict[str, Any]]:
    """Outcomes of earlier predictions in this folder by the same models; empty if there are none."""
    try:
        if json.loads(files.read(files.join(out, "run.json"))).get("models") != models:
            return []
        present = {name for name, _, _ in files.walk(out)}
        rows = read_outcomes(out)
        return [row for row in rows if row["status"] == "failed" or f"{row['video']}.parquet" in present]
    except (
        FileNotFoundError,
        IsADirectoryError,
        ValueError,
        AttributeError,
        TypeError,
        KeyError,
    ):  # no predictions, or other files
        return []
