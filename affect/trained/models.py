"""Trained models on disk.

RUNS/<system>/<address:16>/model.safetensors, model.json       a model is complete when its model.json is there
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn

from affect import weights
from affect.audio.task import AudioTask
from affect.behavior.task import BehaviorTask
from affect.face.task import FaceTask
from affect.fusion.task import DcmmoeTask, RaavTask
from affect.learning.checkpoint import load_weights
from affect.learning.task import TrackTask
from affect.plan.addresses import feature_addresses
from affect.settings.address import address
from affect.settings.models import SETTINGS_OF
from affect.settings.names import MODALITIES, Modality, System
from affect.settings.paths import flat, from_plain
from affect.settings.run import Run
from affect.storage import files
from affect.trained.runs import read_run, run_name, run_names

SECONDS_SINCE = 2
"""Version of models since which RAAV's positions count seconds."""


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

    system: System
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
    def modalities(self) -> tuple[Modality, ...]:
        """What it hears and sees, by itself or through the models before it."""
        own = (self.system,) if self.system in MODALITIES else tuple(self.upstream)
        return cast(tuple[Modality, ...], own)

    @property
    def title(self) -> str:
        """What tells it from others in a table."""
        if self.system == "behavior" and self.settings["states"] != "multimodal":
            return {"vision": "behavior (vision only)", "dense": "behavior (dense)"}[self.settings["states"]]
        if self.system == "audio" and self.settings["cached"]:
            return "audio (cached trunk)"
        fused = "" if self.system in MODALITIES or len(self.upstream) == 3 else f" ({' + '.join(self.upstream)})"
        return f"{self.system}{fused}" + (f", {self.folds} folds" if self.folds else "")

    def task(self) -> TrackTask:
        """How it is fed."""
        settings = from_plain(SETTINGS_OF[self.system], self.settings)
        return make_task(self.system, settings, self.widths, self.segment_samples)

    def network(self, device: torch.device) -> nn.Module:
        """Its weights, ready for inference.

        Raises:
            ValueError: the file holds another model.
        """
        path = files.join(self.uri, "model.safetensors")
        try:
            return load_weights(self.task().shell(self.backbone), files.read(path)).to(device)
        except ValueError as error:
            raise ValueError(f"{path} does not hold the model of its model.json: {error}") from error


def nameless(model: Model) -> Model:
    """A model without the names of whom it knows, which are many: what actors are made with is kept small."""
    return dataclasses.replace(model, learned_from=[], selected_on=[])


def settings_address(run: Run, system: System) -> str:
    """Address of a system's settings, the content of pretrained weights included."""
    settings = run.settings_of(system)
    if system != "audio":
        return address(settings)
    content = weights.identity(run.wavlm.weights, run.wavlm.revision)
    return address(dataclasses.replace(settings, weights="", revision=""), content)


def make_task(system: System, settings: Any, widths: Mapping[str, int], segment_samples: int) -> TrackTask:  # noqa: ANN401
    """A system's task.

    Args:
        system: which.
        settings: of its model.
        widths: of what it reads, by modality: the face's embedding, the behaviour's state, or what a fusion reads.
        segment_samples: samples of a full segment's waveform.
    """
    sizes = cast(Mapping[Modality, int], widths)
    match system:
        case "face":
            return FaceTask(settings, widths["face"])
        case "behavior":
            return BehaviorTask(settings, widths["behavior"])
        case "audio":
            return AudioTask(settings, segment_samples)
        case "dcmmoe":
            return DcmmoeTask(settings, sizes)
        case "raav":
            return RaavTask(settings, sizes)


def load_model(uri: str) -> Model:
    """What is known of a trained model.

    Raises:
        FileNotFoundError: there is none.
        ValueError: its description is of another version of this program.
    """
    path = files.join(uri, "model.json")
    content = files.read(path)
    try:
        model = Model(uri=uri, **json.loads(content))
        settings = dataclasses.asdict(from_plain(SETTINGS_OF[model.system], model.settings))
        model = dataclasses.replace(model, settings=settings)  # those that are new have their defaults
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} describes no model of this version, delete it to train again: {error}") from error
    if model.system == "raav" and model.settings["positions"] and model.version < SECONDS_SINCE:
        raise ValueError(
            f"{path}: its positions count frames and blocks, now they count seconds: delete it, train again"
        )
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
    order = list(SETTINGS_OF)
    return sorted(models, key=lambda model: (order.index(model.system), model.title))


def load_models(run: Run, runs: str, folds: int = 0) -> dict[System, Model]:
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
        model.network(torch.device("cpu"))  # damaged weights are said here in one line, and not by every actor
        other = [m for m, mark in model.features.items() if features[m] != mark]  # type: ignore[index]
        if other:
            raise ValueError(f"{model.uri} was trained on other {', '.join(other)} features than this run extracts")
        stale = [m for m, mark in model.upstream.items() if models[m].address != mark]  # type: ignore[index]
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
