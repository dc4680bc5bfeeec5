"""Runs a training in this process or on Ray Train's workers."""

import time
from collections.abc import Callable
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.train import FailureConfig, TrainingFailedError

from affect.settings.training import Workers
from affect.storage import files

MAX_FAILURES = 3
"""Times that a training is started again after a process of it died; it goes on from its last checkpoint."""


def on_workers(train: Callable[[Any], None], job: Any, workers: Workers, name: str, folder: str) -> None:  # noqa: ANN401
    """Run a training.

    Args:
        train: one process' share of it; called again after a worker died.
        job: its argument.
        workers: how many processes; 0 is this one.
        name: what is trained.
        folder: where the result goes; Ray Train keeps its own files beside it.

    Raises:
        ValueError: it failed in a worker.
    """
    if workers.num_workers == 0:
        train(job)
        return
    trainer = ray.train.torch.TorchTrainer(
        _unwrapped,
        train_loop_config={"train": train, "job": job},
        scaling_config=scaling(workers),
        run_config=ray.train.RunConfig(
            name=f"affect-{name}-{int(time.time())}",
            storage_path=f"{files.absolute(folder)}.ray",
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise ValueError(f"training {name} failed: {error}") from error


def scaling(workers: Workers) -> ray.train.ScalingConfig:
    """What Ray Train is asked for."""
    return ray.train.ScalingConfig(
        num_workers=workers.num_workers,
        use_gpu=workers.use_gpu,
        resources_per_worker={"CPU": workers.num_cpus, **({"GPU": 1} if workers.use_gpu else {})},
    )


def _unwrapped(config: dict[str, Any]) -> None:
    config["train"](config["job"])


def device_of(workers: Workers) -> torch.device:
    """The device of this process' share of a training."""
    if workers.num_workers:
        return ray.train.torch.get_device()
    return torch.device("cuda" if workers.use_gpu else "cpu")
