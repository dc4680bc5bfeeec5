"""Where a training runs: in this process, or in Ray Train's workers; and what it says meanwhile."""

import resource
import time
from collections.abc import Callable
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.train import TrainingFailedError

from affect import files
from affect.config import Workers
from affect.learning import Epoch
from affect.pipeline.progress import LINE_EVERY_S, say


def on_workers(
    train: Callable[[dict[str, Any]], None], job: dict[str, Any], workers: Workers, name: str, folder: str
) -> None:
    """Run a training.

    Args:
        train: one process' share of it.
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
    scaling = ray.train.ScalingConfig(
        num_workers=workers.num_workers,
        use_gpu=workers.use_gpu,
        resources_per_worker={"CPU": workers.num_cpus, **({"GPU": 1} if workers.use_gpu else {})},
    )
    trainer = ray.train.torch.TorchTrainer(
        train,
        train_loop_config=job,
        scaling_config=scaling,
        run_config=ray.train.RunConfig(
            name=f"affect-{name}-{int(time.time())}", storage_path=f"{files.absolute(folder)}.ray"
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise ValueError(f"training {name} failed: {error}") from error


def open_many_files() -> None:
    """Let this process keep as many files open as the system allows: every mapped table is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def device_of(workers: Workers) -> torch.device:
    """The device of this process' share of a training."""
    if workers.num_workers:
        return ray.train.torch.get_device()
    return torch.device("cuda" if workers.use_gpu else "cpu")


def teller(name: str, rank: int) -> Callable[[Epoch], None]:
    """Say how it goes: now and then, and the first process only."""
    last = time.monotonic()

    def tell(epoch: Epoch) -> None:
        nonlocal last
        if rank == 0 and (epoch.number == 1 or time.monotonic() - last >= LINE_EVERY_S):
            last = time.monotonic()
            valence, arousal, mean = epoch.ccc
            say(
                f"train {name}: epoch {epoch.number}, loss {epoch.loss:.3f}, development CCC {valence:.3f} valence, "
                f"{arousal:.3f} arousal, {mean:.3f} mean, {epoch.seconds:.1f} s an epoch"
            )

    return tell
