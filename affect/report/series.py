"""Data of a video's page: thinned curves, stretches without evidence, strongest moments."""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float
from numpy import ndarray

from affect import timeline
from affect.modalities import MODALITIES, SYSTEMS

MAX_POINTS = 3000
"""Maximum points of a curve; longer tracks are averaged over equal stretches."""
MIN_GAP_S = 0.2
"""Minimum length in seconds of a marked stretch without evidence."""
ONE_FRAME_S = 0.04
"""Duration in seconds of the frame of a one-frame video."""
NO_REASON = "no evidence"
"""Reason shown for predictions of earlier versions, which have none."""
DIMENSIONS = ("valence", "arousal")


class Moment(NamedTuple):
    """A frame with an extreme prediction.

    Args:
        what: description, such as "most positive".
        person: name of the person.
        frame: 0-based frame.
        time_s: time of the frame in seconds.
        valence: predicted valence.
        arousal: predicted arousal.
    """

    what: str
    person: str
    frame: int
    time_s: float
    valence: float
    arousal: float


def thinned(values: Float[ndarray, " frames"], step: int) -> list[float | None]:
    """Means over stretches of ``step`` frames, without NaN, to three decimals; None for a stretch of NaN."""
    padded = np.full(-(-len(values) // step) * step, np.nan)
    padded[: len(values)] = values
    parts = padded.reshape(-1, step)
    present = ~np.isnan(parts)
    means = np.where(present, parts, 0.0).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    return [round(float(m), 3) if any_ else None for m, any_ in zip(means, present.any(axis=1), strict=True)]


def stretches(
    mask: Bool[ndarray, " frames"], time_s: Float[ndarray, " frames"], end_s: float, min_s: float = 0.0
) -> list[tuple[float, float]]:
    """Times ``[start, end)`` in seconds of runs of true frames that last longer than ``min_s``."""
    times = np.append(time_s, end_s)
    found = [(float(times[a]), float(times[b])) for a, b, value in timeline.runs(mask) if value]
    return [(round(a, 3), round(b, 3)) for a, b in found if b - a > min_s]


def column(rows: pa.Table, name: str) -> Float[ndarray, " rows"]:
    """Values of a numeric column, NaN for null."""
    return rows[name].to_numpy(zero_copy_only=False).astype(np.float64)


def person_data(rows: pa.Table, gold: Float[ndarray, "frames 2"] | None) -> dict[str, Any]:
    """Data of one person for the script of a video's page, as plain JSON.

    Args:
        rows: predictions of one person, see :func:`affect.storage.schema.predictions`.
        gold: annotations, NaN for a frame without; None if the track is not annotated.
    """
    time_s = column(rows, "time_s")
    num = len(time_s)
    step = max(1, -(-num // MAX_POINTS))
    frame_s = (time_s[-1] - time_s[0]) / (num - 1) if num > 1 else ONE_FRAME_S
    end_s = float(time_s[-1] + frame_s)
    if gold is not None:
        padded = np.full((num, 2), np.nan)
        padded[: min(num, len(gold))] = gold[:num]
        gold = padded
    main = {d: column(rows, d) for d in DIMENSIONS}
    systems = {s: {d: column(rows, f"{s}_{d}") for d in DIMENSIONS} for s in SYSTEMS}
    same = [s for s, of in systems.items() if all(np.allclose(of[d], main[d], equal_nan=True) for d in DIMENSIONS)]
    seen = [m for m in MODALITIES if rows[f"{m}_valid"].null_count == 0]
    trust = {m: column(rows, f"{m}_trust") for m in MODALITIES}
    valid = rows["valid"].to_numpy(zero_copy_only=False)
    shown = shows_person(rows)
    return {
        "name": rows["person"][0].as_py(),
        "track": rows["track"][0].as_py(),
        "step": step,
        "frame_s": round(float(frame_s), 4),
        "end": round(end_s, 3),
        "time": [round(float(t), 3) for t in time_s[::step]],
        **{d: thinned(values, step) for d, values in main.items()},
        "spread": {d: thinned(column(rows, f"{d}_spread"), step) for d in DIMENSIONS},
        "systems": {
            s: {d: thinned(values, step) for d, values in of.items()}
            for s, of in systems.items()
            if s not in same and not np.isnan(of["valence"]).all()
        },
        "gold": None if gold is None else {d: thinned(gold[:, i], step) for i, d in enumerate(DIMENSIONS)},
        "seen": {m: _evidence(rows, m, time_s, end_s) for m in seen},
        "missing": stretches(~valid, time_s, end_s, MIN_GAP_S),
        "mean": {d: round(float(np.mean(values[shown])), 3) if shown.any() else None for d, values in main.items()},
        "trust": {m: thinned(of, step) for m, of in trust.items() if not np.isnan(of).all()},
    }


def _evidence(rows: pa.Table, modality: str, time_s: Float[ndarray, " frames"], end_s: float) -> dict[str, Any]:
    """Share of frames with evidence of a modality, and stretches without, each with its reason."""
    valid = rows[f"{modality}_valid"].to_numpy(zero_copy_only=False)
    reasons = np.array([reason or NO_REASON for reason in rows[f"{modality}_reason"].to_pylist()], dtype=object)
    missing = dict(Counter(reasons[~valid].tolist()).most_common())
    gaps = [
        (*stretch, reason)
        for reason in missing
        for stretch in stretches(~valid & (reasons == reason), time_s, end_s, MIN_GAP_S)
    ]
    return {
        "share": round(float(np.mean(valid)), 3),
        "missing": {reason: round(number / len(valid), 3) for reason, number in missing.items()},
        "gaps": sorted(gaps),
    }


def shows_person(rows: pa.Table) -> Bool[ndarray, " rows"]:
    """Rows with a prediction and a face; if the face is never found, rows with a prediction and any evidence."""
    face = rows["face_valid"].fill_null(False).to_numpy(zero_copy_only=False)
    valid = face if face.any() else rows["valid"].to_numpy(zero_copy_only=False)
    return valid & ~np.isnan(column(rows, "valence"))


def moments(rows: pa.Table) -> list[Moment]:
    """Most positive, most negative, most aroused and calmest frame of one person.

    Only frames of :func:`shows_person` count. A frame with several extremes is listed once.
    """
    valid, values = shows_person(rows), {d: column(rows, d) for d in DIMENSIONS}
    if not valid.any():
        return []
    words: dict[int, list[str]] = {}
    for dimension, high, low in (("valence", "most positive", "most negative"), ("arousal", "most aroused", "calmest")):
        inside = np.where(valid, values[dimension], np.nan)
        words.setdefault(int(np.nanargmax(inside)), []).append(high)
        words.setdefault(int(np.nanargmin(inside)), []).append(low)
    time_s, person = column(rows, "time_s"), rows["person"][0].as_py()
    return [
        Moment(", ".join(what), person, frame, float(time_s[frame]), *(float(values[d][frame]) for d in DIMENSIONS))
        for frame, what in sorted(words.items())
    ]
