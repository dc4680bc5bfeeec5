"""The actor that runs trained models on labelled tracks."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import nn

from affect.corpus.track import Blocks, Series, Track
from affect.evaluation.judged import Judged, judged_name, judged_table
from affect.fusion.task import FusionTask, without
from affect.learning import batches
from affect.learning.task import TrackTask
from affect.pipeline.cluster import device
from affect.storage import files
from affect.storage.store import Store, encode
from affect.tracks.tables import TrackRef, load_track
from affect.trained.embedded import embed
from affect.trained.models import Model, load_model


class JudgeActor:
    """An actor that runs every model on one track at a time.

    Args:
        models: the models to run.
        store: store of the tracks.
    """

    def __init__(self, models: list[Model], store: Store) -> None:
        """Loads the models and their upstream models."""
        torch.set_num_threads(1)
        self._models, self._store = models, store
        known = {model.address: model for model in models}
        for model in models:
            runs = model.uri.removesuffix(f"/{model.system}/{model.address}")
            for modality, mark in model.upstream.items():
                known.setdefault(mark, load_model(files.join(runs, modality, mark)))
        self._known, self._device = known, torch.device(device())
        self._tasks: dict[str, TrackTask] = {mark: model.task() for mark, model in known.items()}
        self._networks: dict[str, nn.Module] = {mark: model.network(self._device) for mark, model in known.items()}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Writes the predictions of all models on one track."""
        ref: TrackRef = batch["ref"][0]
        track = load_track(self._store, ref)
        outputs_of: dict[str, tuple[Series, Blocks | None]] = {}
        for mark, model in sorted(self._known.items(), key=lambda item: bool(item[1].upstream)):
            if model.fuses:
                judged = self._fusion(model, track, outputs_of)
            else:
                task = self._tasks[mark]
                read = task.prepare(track)
                outputs = batches.run(task, self._networks[mark], read, self._device)
                outputs_of[mark] = embed(task, read, outputs)
                prediction = task.predict(read, outputs) if outputs.windows else np.full((track.num_frames, 2), np.nan)
                judged = Judged(prediction, np.zeros((track.num_frames, 0)), {})
            if model in self._models:
                files.write(files.join(model.uri, "judged", judged_name(model, ref)), encode(judged_table(judged)))
        return {"track": [ref.name]}

    def _fusion(self, model: Model, track: Track, outputs_of: Mapping[str, tuple[Series, Blocks | None]]) -> Judged:
        """Predictions of a fusion with all modalities and without each one."""
        task = self._tasks[model.address]
        assert isinstance(task, FusionTask)
        read = {m: outputs_of[mark] for m, mark in model.upstream.items()}
        blocks = next((found for _, found in read.values() if found is not None), None)
        whole = task.prepare(replace(track, series={m: series for m, (series, _) in read.items()}, blocks=blocks))
        prediction, gates = self._fused(task, model, whole)
        removed = {m: self._fused(task, model, without(whole, m))[0] for m in model.modalities}
        return Judged(prediction, gates, removed)

    def _fused(self, task: FusionTask, model: Model, track: Track) -> tuple[ndarray, ndarray]:
        """Predictions (frames, 2) and gates (frames, sources) of a fusion; NaN and 0 without evidence."""
        outputs = batches.run(task, self._networks[model.address], track, self._device)
        if not outputs.windows:
            return np.full((track.num_frames, 2), np.nan), np.zeros((track.num_frames, len(task.sources)))
        return task.predict(track, outputs), task.gates(track, outputs)
