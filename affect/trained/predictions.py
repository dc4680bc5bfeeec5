"""Tables of predictions: one row per frame and person, and one per video.

OUT/<video>.parquet, <video>.csv      one row per frame and person
OUT/videos.csv                        one row per video: status, people, reason

A table says in its metadata what it was made from: where that is the same, its video is not predicted again.
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

from affect.audio.speaking import frame_reasons
from affect.corpus.track import Track
from affect.settings.names import MODALITIES, SYSTEMS, Modality, System
from affect.storage import files, schema
from affect.storage.store import read_table

SUMMARY = "videos"
"""Name of the table that says how each video ended."""


_METADATA = b"affect"


UNANSWERED = "the model's answer is not a finite number"


UNSEEN = {"face": "the face is not found", "behavior": "the vision-language model has no state"}
"""Why a modality has no evidence; of audio :func:`affect.audio.speaking.frame_reasons` says it."""


def known_outcome(path: str, mark: str) -> dict[str, Any] | None:
    """How a video ended that was predicted from the very same before."""
    try:
        note = pq.read_schema(io.BytesIO(files.read(path))).metadata or {}
        known = json.loads(note.get(_METADATA, b"{}"))
        return dict(known["outcome"]) if known.get("mark") == mark else None
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError, AttributeError):  # none, or none of ours
        return None


def prediction_table(
    track: Track,
    answers: Mapping[System, ndarray],
    evidence: Sequence[Modality],
    spread: ndarray,
    trust: Mapping[Modality, ndarray],
    boxes: Float[ndarray, "frames 4"],
) -> pa.Table:
    """Rows of a person.

    Args:
        track: with what its modalities' models say.
        answers: of each system; NaN everywhere if it has no evidence of the person. The last one's is the run's.
        evidence: what the last one needs, any of them: a frame with none is not valid.
        spread: of the last one.
        trust: share of each modality in the last one's gates.
        boxes: of the face, NaN where it is not found.
    """
    seen = {m: series.valid for m, series in track.series.items()}
    valid: ndarray = np.any([seen[m] for m in evidence], axis=0)
    num = track.num_frames
    nothing = pa.nulls(num, pa.float32())
    # what is not finite stays so, and becomes null
    answers = {s: np.where(np.isfinite(a), np.clip(a, -1, 1), np.nan) for s, a in answers.items()}
    main = list(answers.values())[-1]
    answered = ~np.isnan(main).any(axis=1)
    why: dict[Modality, list[str]] = {m: ["" if ok else UNSEEN.get(m, "") for ok in of] for m, of in seen.items()}
    if "audio" in seen:
        unheard = frame_reasons(track.segments.ranges, track.segments.verdict, num)
        why["audio"] = ["" if ok else reason for ok, reason in zip(seen["audio"], unheard, strict=True)]
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
    return pa.table(columns).select(schema.PREDICTIONS.names).cast(schema.PREDICTIONS)


def _nullable(values: ndarray) -> pa.Array:
    """Numbers as they are; what is not finite is none."""
    return pa.array(values, mask=~np.isfinite(values))


def read_predictions(uri: str) -> pa.Table:
    """Predictions of a video; columns that an earlier version did not write are null.

    Raises:
        FileNotFoundError: there are none.
    """
    table = read_table(uri)
    for missing in (field for field in schema.PREDICTIONS if field.name not in table.schema.names):
        table = table.append_column(missing, pa.nulls(table.num_rows, missing.type))
    return table.select(schema.PREDICTIONS.names)


def read_outcomes(out: str) -> list[dict[str, Any]]:
    """How the videos of a folder of predictions ended, from its ``videos.csv``.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is none of ours.
    """
    uri = files.join(out, f"{SUMMARY}.csv")
    kinds = pa.csv.ConvertOptions(column_types=schema.OUTCOMES, null_values=[])
    lines = pa.csv.ParseOptions(newlines_in_values=True)  # of names and reasons
    try:
        found = pa.csv.read_csv(io.BytesIO(files.read(uri)), parse_options=lines, convert_options=kinds)
        rows: list[dict[str, Any]] = found.select(schema.OUTCOMES.names).to_pylist()
    except (KeyError, pa.ArrowException) as error:
        raise ValueError(f"{uri}: no table of outcomes ({error}); delete it and predict again") from error
    if odd := [row["video"] for row in rows if "/" in row["video"] or row["video"] in ("", ".", "..")]:
        raise ValueError(f"{uri}: {odd[0]!r} is no name of a video")
    return rows


def earlier_outcomes(out: str, models: Mapping[System, str]) -> list[dict[str, Any]]:
    """Outcomes of earlier predictions in the same folder by the same models."""
    try:
        if json.loads(files.read(files.join(out, "run.json"))).get("models") != models:
            return []
        there = {name for name, _, _ in files.walk(out)}
        rows = read_outcomes(out)
        return [row for row in rows if row["status"] == "failed" or f"{row['video']}.parquet" in there]
    except (FileNotFoundError, IsADirectoryError, ValueError, AttributeError, TypeError, KeyError):  # none of ours
        return []
