"""Writes a trained model into its folder."""

import dataclasses
import json

import numpy as np

from affect.learning.checkpoint import save_weights
from affect.learning.fit import Fitted
from affect.modalities import SYSTEMS
from affect.progress import say
from affect.storage import files, schema
from affect.trained.inputs import Prepared
from affect.trained.models import Model
from affect.trained.training import Training


def write_model(training: Training, prepared: Prepared, fitted: Fitted) -> None:
    """Writes weights, history and, last, ``model.json``, and prints the scores of the best epoch."""
    names = ("valence", "arousal", "mean")
    history = [
        {"epoch": e.number, "loss": e.loss, "learning_rate": e.learning_rate, "skipped": e.skipped}
        | dict(zip(names, map(float, e.ccc), strict=True))
        for e in fitted.history
    ]
    best = {"epoch": fitted.best.number} | dict(zip(names, map(float, fitted.best.ccc), strict=True))
    system, uri, solved = training.system, training.uri, SYSTEMS[training.system].solved
    gold = [prepared.tracks[ref.name].gold for ref in training.refs if ref.split == "train"]
    model = Model(
        system=system,
        uri=uri,
        address=training.address,
        settings=dataclasses.asdict(training.run.settings_of(system)),
        settings_address=training.settings,
        segment_samples=training.run.segment_samples,
        features={str(m): mark for m, mark in training.features.items()},
        widths=prepared.widths,
        upstream={str(m): mark for m, mark in training.models.items()},
        folds=training.folds,
        learned_from=[ref.source for ref in training.refs if ref.split == "train"],
        selected_on=[ref.source for ref in training.refs if ref.split == "development" and not solved],
        training_mean=np.nanmean(np.concatenate(gold), axis=0).tolist(),
        best=best,
        scored_on=fitted.scored_on,
        version=schema.MODEL_VERSION,
        backbone=prepared.task.backbone_sizes(fitted.model),
    )
    card = {name: value for name, value in dataclasses.asdict(model).items() if name != "uri"}
    files.write(files.join(uri, "model.safetensors"), save_weights(fitted.model))
    files.write(files.join(uri, "history.json"), json.dumps(history, indent=1).encode())
    files.write(files.join(uri, "model.json"), json.dumps(card, indent=1).encode())
    count = sum(parameter.numel() for parameter in fitted.model.parameters())
    if solved:
        say(f"train {training.label}: {model.score_words}, {count:,} parameters")
        return
    say(
        f"train {training.label}: best of {len(fitted.history)} epochs is {fitted.best.number}, development CCC "
        f"{best['valence']:.3f} valence, {best['arousal']:.3f} arousal, {best['mean']:.3f} mean (selected on it), "
        f"{count:,} parameters"
    )
