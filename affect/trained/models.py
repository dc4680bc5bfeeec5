"""Trained models on disk.

RUNS/<system>/<address:16>/model.safetensors, model.json       a model is complete when its model.json is there
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from affect.learning.checkpoint import load_weights
from affect.learning.task import TrackTask
from affect.modalities import SYSTEMS
from affect.plan.addresses import feature_addresses
from affect.settings.paths import flat, from_plain
from affect.settings.run import Run
from affect.storage import files
from affect.trained.runs import read_run, run_name, run_names


@dataclass(frozen=True)
class Model:
    """A trained model on disk.

    Args:
        system: which system it is.
        uri: its folder.
        address: of everything that decided its numbers.
        settings: its settings, as :func:`affect.settings.paths.from_plain` reads them.
        settings_address: address of its settings, the content of pretrained weights included.
        segment_samples: samples of a full segment's waveform.
        features: addresses of the features it was trained on, by modality.
        widths: widths of what it reads, by modality.
        upstream: addresses of the models that embed new tracks for it, by modality.
        folds: in how many folds its training tracks were embedded; 0: by models that were trained on them.
        learned_from: the people that it was trained on, as :attr:`affect.tracks.tables.TrackRef.source` names them;
            what its upstream saw, too.
        selected_on: those that its epoch was selected on.
        training_mean: valence and arousal, mean of the training annotations.
        best: epoch, CCC valence, arousal and mean on the development tracks it was selected on.
        backbone: sizes of the audio model's WavLM; none of other models, and of audio models of earlier versions.
        version: :data:`affect.storage.schema.MODEL_VERSION` when it was trained; 1 before that was noted.
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
    backbone: dict[str, Any] = field(default_factory=dict)
    version: int = 1

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that it reads, itself or through the models before it."""
        return tuple(self.upstream) or (self.system,)

    @property
    def title(self) -> str:
        """Name in tables."""
        folds = f", {self.folds} folds" if self.folds else ""
        return SYSTEMS[self.system].title(self.settings, list(self.upstream)) + folds

    def task(self) -> TrackTask:
        """Builds its inputs and joins its outputs."""
        system = SYSTEMS[self.system]
        return system.task(from_plain(system.model, self.settings), self.widths, self.segment_samples)

    def network(self, device: torch.device) -> nn.Module:
        """Its weights, ready for inference.

        Raises:
            ValueError: the file holds another model.
        """
        path = files.join(self.uri, "model.safetensors")
        try:
            return load_weights(self.task().build_empty(self.backbone), files.read(path)).to(device)
        except ValueError as error:
            raise ValueError(f"{path} does not hold the model of its model.json: {error}") from error


def nameless(model: Model) -> Model:
    """A model without the many names of people that it was trained on: arguments of actors are kept small."""
    return dataclasses.replace(model, learned_from=[], selected_on=[])


def load_model(uri: str) -> Model:
    """Description of a trained model.

    Raises:
        FileNotFoundError: there is none.
        ValueError: its description is of another version of this program.
    """
    path = files.join(uri, "model.json")
    content = files.read(path)
    try:
        model = Model(uri=uri, **json.loads(content))
        settings = dataclasses.asdict(from_plain(SYSTEMS[model.system].model, model.settings))
        model = dataclasses.replace(model, settings=settings)  # those that are new have their defaults
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} describes no model of this version, delete it to train again: {error}") from error
    if reason := SYSTEMS[model.system].outdated(model.settings, model.version):
        raise ValueError(f"{path}: {reason}: delete it, train again")
    if not uri.endswith(f"/{model.system}/{model.address}"):
        raise ValueError(f"{path} describes {model.system}/{model.address}: it was put into the wrong folder")
    return model


def all_models(runs: str) -> list[Model]:
    """Every model that a recipe's latest training came to, once, in the order of the systems.

    Raises:
        ValueError: there is none.
    """
    names = run_names(runs)
    found = {(system, mark) for name in names for system, mark in read_run(runs, name).items()}
    models = [load_model(files.join(runs, system, mark)) for system, mark in sorted(found)]
    if not models:
        raise ValueError(f"{runs}: no trained model; run jobs/train.py first")
    order = list(SYSTEMS)
    return sorted(models, key=lambda model: (order.index(model.system), model.title))


def load_models(run: Run, runs: str, folds: int = 0) -> dict[str, Model]:
    """The latest trained model of each of a run's systems.

    Args:
        run: the run.
        runs: where models are.
        folds: of the training that is meant.

    Raises:
        ValueError: one is missing, or was trained with settings or features other than the run's.
    """
    runs, name = files.absolute(runs), run_name(run.name, folds)
    known = read_run(runs, name)
    if missing := [system for system in run.systems if system not in known]:
        flags = f" --folds {folds}" if folds else ""
        raise ValueError(
            f"{runs} has no trained {missing[0]} model of {name}: name the folder that jobs/train.py filled "
            f"(--runs, runs=), or train first: jobs/train.py {run.name}{flags} --runs {runs}"
        )
    models = {system: load_model(files.join(runs, system, known[system])) for system in run.systems}
    features = feature_addresses(run)
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


def check_settings(model: Model, run: Run) -> None:
    """See that a model was trained with a run's settings, whatever pretrained weights it began with.

    Raises:
        ValueError: it was not; names the settings that differ.
    """
    kept = json.dumps(dataclasses.asdict(run.settings_of(model.system)))  # as model.json has them: tuples are lists
    own, theirs = flat(json.loads(kept)), flat(json.loads(json.dumps(model.settings)))
    differing = [
        f"{name} {theirs.get(name)} (this run: {value})"
        for name, value in own.items()
        if theirs.get(name) != value and name not in ("weights", "revision")  # a trained model holds all its weights
    ]
    if differing:
        raise ValueError(
            f"{model.uri} was trained with other {model.system} settings than this run has: {', '.join(differing)}"
        )
