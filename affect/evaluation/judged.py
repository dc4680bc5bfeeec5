"""Predictions of trained models on labelled tracks, with all modalities and without each.

RUNS/<system>/<address>/judged/<track>-<address:16>.parquet     one row per frame
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from numpy import ndarray

from affect.fusion.task import FusionTask
from affect.modalities import MODALITIES
from affect.plan.addresses import feature_addresses
from affect.progress import say
from affect.settings.address import address
from affect.settings.run import Run
from affect.storage import files, schema
from affect.storage.columns import list_column, matrix
from affect.storage.store import read_table, slug
from affect.tracks.tables import TrackRef
from affect.trained.models import Model


class Judged(NamedTuple):
    """Predictions of a model on a track.

    Args:
        prediction: valence and arousal of every frame; NaN if there is no evidence of the person at all.
        gates: gate weights of a fusion's sources; no columns for a unimodal model.
        without: predictions without a modality, by removed modality; empty for a unimodal model.
    """

    prediction: Float[ndarray, "frames 2"]
    gates: Float[ndarray, "frames sources"]
    without: Mapping[str, Float[ndarray, "frames 2"]]


def usable(models: Sequence[Model], run: Run) -> list[Model]:
    """Models trained on the features that this run extracts; prints the others."""
    features, kept = feature_addresses(run), []
    for model in models:
        other = [m for m, mark in model.features.items() if features.get(m) != mark]
        if other:
            say(f"left out: {model.title} {model.uri}: it was trained on other {', '.join(other)} features")
        else:
            kept.append(model)
    return kept


def judged_name(model: Model, ref: TrackRef) -> str:
    """File name of a model's predictions on a track."""
    return f"{slug(ref.name)}-{address(schema.MODEL_VERSION, ref.mark(*model.tables))}.parquet"


def judged_table(judged: Judged) -> pa.Table:
    """Predictions on a track as a table of :func:`affect.storage.schema.judged`."""
    num = len(judged.prediction)
    columns: dict[str, Any] = {
        "frame": np.arange(num),
        "valence": judged.prediction[:, 0],
        "arousal": judged.prediction[:, 1],
        "gates": list_column(judged.gates, pa.float32()),
    }
    for modality in MODALITIES:
        values = judged.without.get(modality, np.full((num, 2), np.nan))
        columns |= {f"without_{modality}_{name}": values[:, i] for i, name in enumerate(("valence", "arousal"))}
    return pa.table(columns).cast(schema.judged(MODALITIES))


def read_judged(model: Model, ref: TrackRef) -> Judged:
    """Reads the stored predictions of a model on a track."""
    table = read_table(files.join(model.uri, "judged", judged_name(model, ref)))

    def two(prefix: str) -> ndarray:
        return np.stack([table[prefix + name].to_numpy() for name in ("valence", "arousal")], axis=1).astype(np.float64)

    removed = {m: two(f"without_{m}_") for m in (model.modalities if model.fuses else ())}
    return Judged(two(""), matrix(table["gates"]), removed)


def sources_of(model: Model) -> tuple[str, ...]:
    """Names of a fusion's gate weights; empty for a unimodal model."""
    task = model.task()
    return task.sources if isinstance(task, FusionTask) else ()
