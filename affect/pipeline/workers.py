"""Runs trainings: in this process, on Ray Train workers, or as Ray tasks."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train import FailureConfig, TrainingFailedError

from affect.pipeline.cluster import WORKERS_ADVICE, check_room, shares_of
from affect.settings.training import Workers
from affect.storage import files

MAX_FAILURES = 3
"""Restarts of a training whose process died; each resumes from the last checkpoint."""


def on_workers(train: Callable[[Any], None], job: Any, workers: Workers, name: str, folder: str) -> None:  # noqa: ANN401
    """Runs one training.

    Args:
        train: one process' share of the training; called again after a worker died.
        job: argument of ``train``.
        workers: number of processes and their resources; 0 processes: this one trains.
        name: name of the model.
        folder: folder of the model; Ray Train's own files are in ``<folder>.ray``.

    Raises:
        ValueError: the training failed in a worker.
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


def check_workers(workers: Workers, *, read: bool = False, tasks: bool = False) -> None:
    """Checks that the processes of a training have room together, and a GPU where they use one.

    Args:
        workers: number and resources; with 0 workers the job's own process trains.
        read: whether a Ray Data task reads for them.
        tasks: whether models are also trained by :func:`as_tasks`.

    Raises:
        ValueError: they have not: training would wait for ever or fail.
    """
    if workers.use_gpu and not workers.num_workers and not torch.cuda.is_available():
        raise ValueError(
            "--workers.use-gpu: the job's own process trains and sees no GPU: leave the flag out, or give "
            "--workers.num-workers 1 to train on a node that has one"
        )
    check_room(shares_of(workers, read=read), WORKERS_ADVICE)
    if tasks:
        check_room(shares_of(replace(workers, num_workers=1), read=False), WORKERS_ADVICE)


def as_tasks(train: Callable[[Any], None], jobs: Sequence[Any], workers: Workers) -> None:
    """Runs several trainings at once, a Ray task each.

    Args:
        train: runs one training; called again after its process died.
        jobs: arguments of ``train``.
        workers: resources of a task; the number of workers is not used.
    """
    remote: Any = ray.remote(train).options(
        num_cpus=workers.num_cpus, num_gpus=int(workers.use_gpu), max_retries=MAX_FAILURES
    )
    ray.get([remote.remote(job) for job in jobs])


def scaling(workers: Workers) -> ray.train.ScalingConfig:
    """Workers and their resources, as Ray Train takes them."""
    return ray.train.ScalingConfig(
        num_workers=workers.num_workers,
        use_gpu=workers.use_gpu,
        resources_per_worker={"CPU": workers.num_cpus, **({"GPU": 1} if workers.use_gpu else {})},
    )


def _unwrapped(config: dict[str, Any]) -> None:
    """Training function of Ray Train, which passes one dictionary."""
    config["train"](config["job"])


def device_of(workers: Workers) -> torch.device:
    """Device of this training process."""
    if workers.num_workers:
        return ray.train.torch.get_device()
    return torch.device("cuda" if workers.use_gpu else "cpu")
