"""Predictions against annotations: one score per system, with an interval over tracks."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float
from numpy import ndarray
from rich.markup import escape
from rich.table import Table

from affect import files, schema
from affect.concordance import Moments, Score, score


@dataclass(frozen=True)
class Predicted:
    """Predictions of one track.

    Args:
        main: of the run's main system.
        systems: of each system that has an answer.
    """

    main: Float[ndarray, "frames 2"]
    systems: Mapping[str, Float[ndarray, "frames 2"]]


def read_predictions(out: str) -> dict[str, Predicted]:
    """Predictions by track.

    Raises:
        ValueError: there is none.
    """
    found = {}
    for name, _, _ in files.walk(out):
        if not name.endswith(".parquet"):
            continue
        rows = pq.read_table(io.BytesIO(files.read(files.join(out, name))))
        for track in rows["track"].unique().to_pylist():
            own = rows.filter(rows["track"].to_numpy(zero_copy_only=False) == track)
            systems = {s: _two(own, f"{s}_valence", f"{s}_arousal") for s in schema.SYSTEMS}
            answered = {s: values for s, values in systems.items() if np.isfinite(values).all()}
            found[track] = Predicted(_two(own, "valence", "arousal"), answered)
    if not found:
        raise ValueError(f"{out}: no predictions; run jobs/predict.py first")
    return found


def _two(rows: object, valence: str, arousal: str) -> Float[ndarray, "frames 2"]:
    columns = [rows[name].to_numpy(zero_copy_only=False) for name in (valence, arousal)]  # type: ignore[index]
    return np.stack(columns, axis=1).astype(np.float64)


def score_systems(
    predictions: Mapping[str, Predicted], truth: Mapping[str, Float[ndarray, "frames 2"]]
) -> dict[str, Score]:
    """Score every system on the tracks that it answers.

    Args:
        predictions: by track.
        truth: annotations by track.

    Raises:
        ValueError: a track of the truth was not predicted.
    """
    missing = sorted(truth.keys() - predictions.keys())
    if missing:
        raise ValueError(
            f"no prediction for track {missing[0]} ({len(missing)} tracks in all); predict its video first"
        )
    moments: dict[str, list[Moments]] = {}
    for track, gold in truth.items():
        for system, values in predictions[track].systems.items():
            frames = np.minimum(np.arange(len(gold)), len(values) - 1)  # containers may lack a label's last frames
            moments.setdefault(system, []).append(Moments.of(gold, values[frames]))
    return {system: score(moments[system]) for system in schema.SYSTEMS if system in moments}


def table(scores: Mapping[str, Score], where: str) -> Table:
    """Scores for a terminal."""
    result = Table(title=f"CCC [95 % bootstrap interval over tracks], {where}", title_justify="left")
    for column in ("system", "valence", "arousal", "mean", "tracks", "frames"):
        result.add_column(column, justify="left" if column == "system" else "right", no_wrap=True)
    for system, s in scores.items():
        cells = [_with_interval(s.ccc[i], s.low[i], s.high[i]) for i in range(3)]
        result.add_row(system, *cells, str(s.num_tracks), f"{s.num_frames:,}")
    return result


def _with_interval(value: float, low: float, high: float) -> str:
    interval = f"[{low:.3f}, {high:.3f}]" if np.isfinite(low) else "[one track]"
    return escape(f"{value:.3f} {interval}")
