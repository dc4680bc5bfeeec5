"""Trained models on disk.

RUNS/<system>/<address:16>/model.safetensors, model.json       model.json is written last: with it a model is complete
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from affect.learning.checkpoint import load_weights
from affect.learning.fit import SELECTED
from affect.learning.task import TrackTask
from affect.modalities import FUSIONS, MODALITIES, SYSTEMS
from affect.plan.addresses import feature_addresses
from affect.settings.address import address
from affect.settings.paths import flat, from_plain
from affect.settings.run import Run
from affect.storage import files, schema
from affect.tracks.tables import ratings_table
from affect.trained.runs import read_run, run_name, run_names


@dataclass(frozen=True)
class Model:
    """A trained model on disk.

    Args:
        system: name of the system.
        uri: folder of the model; empty for fixed weights.
        address: hash of everything that affects its weights.
        settings: settings as plain JSON, for :func:`affect.settings.paths.from_plain`.
        settings_address: address of the settings, with the content of pretrained weights.
        segment_samples: samples in the waveform of a full segment.
        features: addresses of the features it was trained on, by modality.
        widths: widths of its inputs, by modality.
        upstream: addresses of the unimodal models whose embeddings it reads, by modality; empty for a unimodal model.
        folds: number of folds in which its training tracks were embedded; 0: by models trained on the same tracks.
        learned_from: people in its training data and in that of its upstream models, as
            :attr:`affect.tracks.tables.TrackRef.source`.
        selected_on: people in the data that its epoch was selected on.
        training_mean: mean valence and arousal of the training annotations.
        best: epoch, CCC of valence and arousal, and their mean.
        scored_on: tracks or folds that ``best`` is a score of.
        backbone: sizes of the audio model's WavLM; empty for other models and for audio models of earlier versions.
        version: :data:`affect.storage.schema.MODEL_VERSION` at training; 1 for models older than this field.
    """

    system: str
    uri: str
    address: str
    settings: dict[str, Any]
    settings_address: str
    segment_samples: int
    features: dict[str, str]
    widths: dict[str, int]
    upstream: dict[str, str]
    folds: int
    learned_from: list[str]
    selected_on: list[str]
    training_mean: list[float]
    best: dict[str, int | float]
    scored_on: str = SELECTED
    backbone: dict[str, Any] = field(default_factory=dict)
    version: int = 1

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that it reads, directly or through its upstream models."""
        return SYSTEMS[self.system].modalities(self.settings, list(self.upstream))

    @property
    def tables(self) -> tuple[str, ...]:
        """Tables of tracks that it and its upstream models read, besides times and labels."""
        rated = not self.upstream and self.system not in MODALITIES
        return tuple(map(ratings_table, self.modalities)) if rated else self.modalities

    @property
    def fuses(self) -> bool:
        """Whether it reads several modalities, so that its gates and its predictions without each are of interest."""
        return self.system in FUSIONS

    @property
    def untrained(self) -> bool:
        """Whether it has the fixed weights of a system that needs no training, and no folder."""
        return not self.uri

    @property
    def title(self) -> str:
        """Name of the model in tables."""
        folds = f", {self.folds} folds" if self.folds else ", untrained" if self.untrained else ""
        return SYSTEMS[self.system].title(self.settings, list(self.upstream)) + folds

    @property
    def score_words(self) -> str:
        """Mean CCC at the end of training, and its origin."""
        mean = self.best.get("mean", math.nan)
        return f"mean CCC {mean:.3f} on {self.scored_on}" if math.isfinite(mean) else f"scored on {self.scored_on}"

    def task(self) -> TrackTask:
        """Task that builds its inputs and joins its outputs."""
        system = SYSTEMS[self.system]
        return system.task(from_plain(system.model, self.settings), self.widths, self.segment_samples)

    def network(self, device: torch.device) -> nn.Module:
        """Network with its weights, in inference mode.

        Raises:
            ValueError: the weights do not fit the description.
        """
        if self.untrained:
            return self.task().build().eval().to(device)
        path = files.join(self.uri, "model.safetensors")
        try:
            return load_weights(self.task().build_empty(self.backbone), files.read(path)).to(device)
        except ValueError as error:
            raise ValueError(f"{path} does not hold the model of its model.json: {error}") from error


def without_people(model: Model) -> Model:
    """Copy of a model without its lists of people, to keep the arguments of actors small."""
    return dataclasses.replace(model, learned_from=[], selected_on=[])


def load_model(uri: str) -> Model:
    """Reads the description of a trained model.

    Raises:
        FileNotFoundError: there is no model.
        ValueError: another version of this program wrote it, or it is in the wrong folder.
    """
    path = files.join(uri, "model.json")
    content = files.read(path)
    try:
        model = Model(uri=uri, **json.loads(content))
        settings = dataclasses.asdict(from_plain(SYSTEMS[model.system].model, model.settings))
        model = dataclasses.replace(model, settings=settings)  # new settings get their defaults
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} describes no model of this version, delete it to train again: {error}") from error
    if reason := SYSTEMS[model.system].outdated(model.settings, model.version):
        raise ValueError(f"{path}: {reason}: delete it, train again")
    if not uri.endswith(f"/{model.system}/{model.address}"):
        raise ValueError(f"{path} describes {model.system}/{model.address}: it was put into the wrong folder")
    return model


def all_models(runs: str) -> list[Model]:
    """Distinct models of the latest training of every recipe, in the order of the systems.

    Raises:
        ValueError: there is no model.
    """
    names = run_names(runs)
    found = {(system, mark) for name in names for system, mark in read_run(runs, name).items()}
    models = [load_model(files.join(runs, system, mark)) for system, mark in sorted(found)]
    if not models:
        raise ValueError(f"{runs}: no trained model; run jobs/train.py first")
    order = list(SYSTEMS)
    return sorted(models, key=lambda model: (order.index(model.system), model.title))


def load_models(run: Run, runs: str, folds: int = 0) -> dict[str, Model]:
    """Latest trained model of each system of a run; one that needs no training has its fixed weights without.

    Args:
        run: the run.
        runs: folder of trained models.
        folds: number of folds of the training.

    Raises:
        ValueError: a model is missing, or was trained with other settings or features than the run's.
    """
    runs, name = files.absolute(runs), run_name(run.name, folds)
    known = read_run(runs, name)
    untrained = [system for system in run.systems if system not in known and SYSTEMS[system].solved]
    if missing := [system for system in run.systems if system not in (*known, *untrained)]:
        flags = f" --folds {folds}" if folds else ""
        raise ValueError(
            f"{runs} has no trained {missing[0]} model of {name}: name the folder that jobs/train.py filled "
            f"(--runs, runs=), or train first: jobs/train.py {run.name}{flags} --runs {runs}"
        )
    features = feature_addresses(run)
    models = {
        system: _untrained(run, system, features)
        if system in untrained
        else load_model(files.join(runs, system, known[system]))
        for system in run.systems
    }
    for model in models.values():
        check_settings(model, run)
        model.network(torch.device("cpu"))  # damaged weights are one error here instead of one per actor
        other = [m for m, mark in model.features.items() if features[m] != mark]
        if other:
            raise ValueError(f"{model.uri} was trained on other {', '.join(other)} features than this run extracts")
        stale = [m for m, mark in model.upstream.items() if models[m].address != mark]
        if stale:
            raise ValueError(f"{model.uri} was trained on older {', '.join(stale)} models; train {model.system} again")
    return models


def _untrained(run: Run, system: str, features: Mapping[str, str]) -> Model:
    """A system with its fixed weights.

    Raises:
        ValueError: an encoder does not rate valence and arousal.
    """
    check_untrained(run, system)
    settings = SYSTEMS[system].settings_address(run)
    return Model(
        system=system,
        uri="",
        address=address(schema.MODEL_VERSION, "untrained", settings),
        settings=dataclasses.asdict(run.settings_of(system)),
        settings_address=settings,
        segment_samples=run.segment_samples,
        features={m: features[m] for m in run.extracted_for(system)},
        widths={m: MODALITIES[m].num_ratings(run) for m in run.rates(system)},
        upstream={},
        folds=0,
        learned_from=[],
        selected_on=[],
        training_mean=[0.0, 0.0],
        best={},
        version=schema.MODEL_VERSION,
    )


def check_untrained(run: Run, system: str) -> None:
    """Checks that the encoders which a system reads rate valence and arousal, so that it predicts without training.

    Raises:
        ValueError: one does not; the message has the flag with which it would.
    """
    if silent := [m for m in run.rates(system) if not MODALITIES[m].rates_affect(run)]:
        flags = sorted({MODALITIES[m].rated_with for m in silent if not MODALITIES[m].num_ratings(run)} - {""})
        labels = f"train it on labels first (jobs/train.py {run.name})"
        raise ValueError(
            f"{system}: the encoder of {', '.join(silent)} gives no valence and arousal of its own: "
            f"{'give ' + ' and '.join(flags) if flags else labels}, or leave it out (--{system}.modalities)"
        )


def check_settings(model: Model, run: Run) -> None:
    """Checks that a model was trained with a run's settings; pretrained weights may differ.

    Raises:
        ValueError: settings differ; the message names them.
    """
    kept = json.dumps(dataclasses.asdict(run.settings_of(model.system)))  # as model.json has them: tuples are lists
    expected, actual = flat(json.loads(kept)), flat(json.loads(json.dumps(model.settings)))
    differing = [
        f"{name} {actual.get(name)} (this run: {value})"
        for name, value in expected.items()
        if actual.get(name) != value and name not in ("weights", "revision")  # a trained model holds all its weights
    ]
    if differing:
        raise ValueError(
            f"{model.uri} was trained with other {model.system} settings than this run has: {', '.join(differing)}"
        )
