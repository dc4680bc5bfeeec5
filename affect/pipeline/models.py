"""Trained models on disk, and what they say of tracks.

RUNS/<system>/<address:16>/model.safetensors, model.json       a model is complete when its model.json is there
STORE/embedded/<model>/<track>-<address:16>/{frames,blocks}.arrow    what a unimodal model says of a track
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from numpy import ndarray
from torch import nn

from affect import batches, files, schema, weights
from affect.batches import Outputs
from affect.checkpoint import load_weights
from affect.config import MODALITIES, SETTINGS_OF, Modality, Run, System, address, from_plain
from affect.corpus.clip import Extracted
from affect.corpus.track import Blocks, Series, Track
from affect.pipeline.columns import matrix, rows_of
from affect.pipeline.store import Store, slug
from affect.pipeline.tracks import TrackRef
from affect.pipeline.trainings import read_run, run_names
from affect.tasks.audio import AudioTask
from affect.tasks.behavior import BehaviorTask
from affect.tasks.face import FaceTask
from affect.tasks.fusion import DcmmoeTask, RaavTask
from affect.tasks.track import TrackTask

SECONDS_SINCE = 2
"""Version of models since which RAAV's positions count seconds."""


@dataclass(frozen=True)
class Model:
    """A trained model on disk.

    Args:
        system: which system it is.
        uri: its folder.
        address: of everything that decided its numbers.
        settings: its settings, as :func:`affect.config.from_plain` reads them.
        settings_address: address of its settings, the content of pretrained weights included.
        segment_samples: samples of a full segment's waveform.
        features: addresses of the features it was trained on, by modality.
        widths: widths of what it reads, by modality.
        upstream: addresses of the models that embed new tracks for it, by modality.
        folds: in how many folds its training tracks were embedded; 0: by models that were trained on them.
        learned_from: the people that it was trained on, as :attr:`affect.pipeline.tracks.TrackRef.source` names them;
            what its upstream saw, too.
        selected_on: those that its epoch was selected on.
        training_mean: valence and arousal, mean of the training annotations.
        best: epoch, CCC valence, arousal and mean on the development tracks it was selected on.
        backbone: sizes of the audio model's WavLM; none of other models, and of audio models of earlier versions.
        version: :data:`affect.schema.MODEL_VERSION` when it was trained; 1 before that was noted.
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


def embed(task: TrackTask, track: Track, outputs: Outputs) -> tuple[Series, Blocks | None]:
    """What a trained unimodal model says of a track, from its windows' outputs."""
    blocks = task.blocks(track, outputs) if isinstance(task, AudioTask) else None
    return task.series(track, outputs), blocks


def put_embedded(
    store: Store, modality: Modality, model: str, task: TrackTask, network: nn.Module, track: Track, ref: TrackRef
) -> None:
    """Write what a unimodal model says of a track, blocks first: present frames mean that all is there."""
    device = next(network.parameters()).device
    series, blocks = embed(task, track, batches.run(task, network, track, device))
    if blocks is not None:
        num, per_segment, width = blocks.embedding.shape
        columns = {
            "segment": np.repeat(np.arange(num), per_segment),
            "block": np.tile(np.arange(per_segment), num),
            "embedding": rows_of(blocks.embedding.reshape(-1, width), pa.float32()),
            "valence": blocks.prediction[..., 0].reshape(-1),
            "arousal": blocks.prediction[..., 1].reshape(-1),
            "valid": blocks.valid.reshape(-1),
        }
        table = pa.table(columns).cast(schema.EMBEDDED_BLOCKS)
        store.put(embedded_key(model, modality, ref, "blocks"), Extracted(table))
    columns = {
        "frame": np.arange(track.num_frames),
        "embedding": rows_of(series.embedding, pa.float32()),
        "valence": series.prediction[:, 0],
        "arousal": series.prediction[:, 1],
        "valid": series.valid,
    }
    table = pa.table(columns).cast(schema.EMBEDDED_FRAMES)
    store.put(embedded_key(model, modality, ref, "frames"), Extracted(table))


def embedded_key(model: str, modality: Modality, ref: TrackRef, part: str = "frames") -> str:
    """Key of what a unimodal model says of a track's frames or blocks."""
    return f"embedded/{model}/{slug(ref.name)}-{ref.mark(modality)}/{part}.arrow"


def with_embeddings(track: Track, ref: TrackRef, store: Store, models: Mapping[Modality, str]) -> Track:
    """A track with what unimodal models say of it.

    Args:
        track: the track.
        ref: where it came from.
        store: where embeddings are.
        models: addresses of the models, by modality.

    Raises:
        ValueError: a model has said nothing of it.
    """
    series: dict[Modality, Series] = {}
    blocks = None
    for modality, model in models.items():
        try:
            frames = store.get(embedded_key(model, modality, ref)).table
            if modality == "audio":
                said = store.get(embedded_key(model, modality, ref, "blocks")).table
                blocks = _blocks(said, len(track.segments.ranges))
        except FileNotFoundError:
            raise ValueError(
                f"track {track.name}: {store.uri} has no {modality} embeddings of model {model}; "
                f"jobs/train.py with {modality} among its systems makes them"
            ) from None
        embedding, prediction, valid = _said(frames)
        series[modality] = Series(embedding, prediction, valid)
    return dataclasses.replace(track, series=series, blocks=blocks)


def _said(table: pa.Table) -> tuple[ndarray, ndarray, ndarray]:
    two = np.stack([table["valence"].to_numpy(), table["arousal"].to_numpy()], axis=1)
    return matrix(table["embedding"]), two, table["valid"].to_numpy()


def _blocks(table: pa.Table, num_segments: int) -> Blocks:
    embedding, prediction, valid = _said(table)
    valid = valid.reshape(num_segments, -1)
    return Blocks(embedding.reshape(*valid.shape, -1), prediction.reshape(*valid.shape, 2), valid)
