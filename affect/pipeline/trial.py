"""One trial of a search, in Ray Tune's process or on Ray Train workers of its own."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import ray.train
import ray.train.torch
import torch
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from affect.learning.fit import CheckpointFile, Epoch, epochs
from affect.pipeline.train_model import loader_of
from affect.pipeline.workers import device_of, scaling
from affect.progress import one_line
from affect.settings.paths import with_settings
from affect.settings.training import Fit, Workers
from affect.storage import files
from affect.trained.inputs import prepared
from affect.trained.search import METRIC, Search
from affect.trained.training import Training

MAX_FAILURES = 2
"""Restarts of a trial whose process died; each resumes from the last epoch."""

Report = Callable[[dict[str, Any]], None]
"""Reports the metrics of an epoch to Ray Tune."""


def run_trial(settings: dict[str, Any], job: Search) -> None:
    """Trains with proposed settings and reports every epoch; on Ray Train workers if the run has any.

    An error that would happen again is reported with the lowest score; a process that died is restarted.

    Args:
        settings: proposed values, by path of a setting.
        job: the search.
    """
    try:
        training = dataclasses.replace(job.training, run=with_settings(job.training.run, settings))
    except ValueError as error:
        tune.report(_failure(error))
        return
    folder = files.join(job.checkpoints, tune.get_context().get_trial_id())
    work = {"training": training, "parts": job.parts, "folder": folder}
    workers = training.run.workers
    if workers.num_workers:
        _on_workers(work, workers)
    else:
        torch.set_num_threads(max(1, int(workers.num_cpus)))
        _train_or_fail(work, tune.report)


def _failure(error: Exception) -> dict[str, Any]:
    """Metrics of a trial that failed."""
    return {"valence": -1.0, "arousal": -1.0, METRIC: -1.0, "epochs": 0, "error": one_line(error)}


def _on_workers(work: Mapping[str, Any], workers: Workers) -> None:
    """Runs a trial on Ray Train workers, which report through this process."""
    trainer = ray.train.torch.TorchTrainer(
        _worker,
        train_loop_config=dict(work),
        scaling_config=scaling(workers),
        run_config=ray.train.RunConfig(
            name="workers",
            storage_path=files.absolute(work["folder"]),
            callbacks=cast(Any, [TuneReportCallback()]),
            failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    trainer.fit()


def _worker(work: dict[str, Any]) -> None:
    """A Ray Train worker's share of a trial."""
    _train_or_fail(work, ray.train.report)


def _train_or_fail(work: Mapping[str, Any], report: Report) -> None:
    """Trains, or reports why training with these settings fails."""
    try:
        _train_parts(work, report)
    except (ValueError, FloatingPointError) as error:
        report(_failure(error))


def _train_parts(work: Mapping[str, Any], report: Report) -> None:
    """Trains one model per part, an epoch of each in turn, and reports the mean of their best scores so far."""
    training: Training = work["training"]
    task, tracks, _ = prepared(training)
    runs = [
        epochs(
            task,
            [tracks[name] for name in train],
            [tracks[name] for name in scored],
            device=device_of(training.run.workers),
            loader=loader_of(training),
            checkpoint_file=CheckpointFile(
                files.join(work["folder"], f"{number}.safetensors"), training.run.workers.checkpoint_steps
            ),
        )
        for number, (train, scored) in enumerate(work["parts"])
    ]
    best: list[Epoch] = []
    last: list[Epoch] = []
    for step in itertools.zip_longest(*runs):
        last = [each[0] if each else before for each, before in itertools.zip_longest(step, last)]
        best = [max(pair, key=lambda epoch: epoch.ccc[2]) for pair in zip(best or last, last, strict=True)]
        report(_metrics(task.settings, best, last))


def _metrics(fit: Fit, best: Sequence[Epoch], last: Sequence[Epoch]) -> dict[str, Any]:
    """Metrics of a trial, from the best and the last epoch of each of its parts."""
    valence, arousal, mean = np.mean([epoch.ccc for epoch in best], axis=0).tolist()
    ended = all(
        at.number >= fit.max_epochs or at.number - top.number >= fit.stop_patience
        for at, top in zip(last, best, strict=True)
    )
    return {
        "valence": valence,
        "arousal": arousal,
        METRIC: mean,
        "now": float(np.mean([epoch.ccc[2] for epoch in last])),
        "lowest": float(min(epoch.ccc[2] for epoch in best)),
        "highest": float(max(epoch.ccc[2] for epoch in best)),
        "epochs": max(epoch.number for epoch in last),
        "ended": ended,
    }
