"""One process' share of the frame encoder's training; Ray Data reads its pictures."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch

from affect.corpus.images import ImageError
from affect.face import grada
from affect.face.encoder_scores import judge, kind_of_units, print_scores
from affect.face.encoder_task import GradaTask
from affect.learning import distributed
from affect.learning.batches import Batch, Share, Task, collate
from affect.learning.fit import CheckpointFile, fit, keep_freed_memory
from affect.learning.observer import Observer
from affect.pipeline.stream import in_batches, to_batch, to_row
from affect.pipeline.workers import device_of
from affect.progress import say
from affect.storage import files
from affect.trained.training import EncoderTraining

MAX_NAMED = 3
"""Most unusable pictures that are named."""


def train_share(job: EncoderTraining) -> None:
    """Trains the encoder together with the other processes; rank 0 scores and writes it."""
    run, folder = job.run, job.folder
    keep_freed_memory()
    task, device = GradaTask(run), device_of(run.workers)
    rank, _ = distributed.world()
    loader = ImageLoader(run.workers.loader_cpus)
    checkpoint_file = CheckpointFile(files.join(folder, "checkpoint.safetensors"), run.workers.checkpoint_steps)
    with Observer("grada", folder, run.fit.max_epochs, rank) as observer:
        fitted = fit(
            task,
            job.training,
            job.development,
            device=device,
            on_epoch=observer.epoch,
            on_step=observer.step,
            loader=loader,
            checkpoint_file=checkpoint_file,
        )
    if rank:
        return
    torch.manual_seed(run.fit.seed)
    untrained = task.build().to(device)
    report: dict[str, Any] = {}
    for name, items in (("development", job.development), ("held_out", job.held_out)):
        if items:
            before, after = (judge(task, model, items, device, loader) for model in (untrained, fitted.model))
            report[name] = {"untrained": before.as_json(), "trained": after.as_json()}
            print_scores(name, before, after, kind_of_units(items))
    assert isinstance(fitted.model, grada.Grada)
    report["left_out"] = loader.num_broken
    history = [{"epoch": e.number, "loss": e.loss, "ccc": e.ccc.tolist(), "skipped": e.skipped} for e in fitted.history]
    if loader.num_broken > MAX_NAMED:
        say(f"left out: {loader.num_broken} pictures in all")
    files.write(files.join(folder, "history.json"), json.dumps(history, indent=1).encode())
    files.write(files.join(folder, "report.json"), json.dumps(report, indent=1).encode())
    grada.save(fitted.model, folder)
    files.delete(checkpoint_file.uri)


class ImageLoader:
    """Reads pictures with Ray Data, some batches ahead of the model.

    An unusable picture is left out of the loss. The first few are named, all are counted.

    Args:
        num_cpus: CPUs of one reading task.
    """

    def __init__(self, num_cpus: float) -> None:
        """Starts with no unusable picture."""
        self._num_cpus = num_cpus
        self._broken: set[str] = set()

    @property
    def num_broken(self) -> int:
        """Number of unusable pictures so far."""
        return len(self._broken)

    def __call__(self, task: Task, shares: Sequence[Share], device: torch.device) -> Iterator[Batch]:
        """Batches of the shares, in order."""
        rows = [{"share": [item.cut(*window) for item, window in share.samples]} for share in shares]
        work = partial(_load, task=cast(GradaTask, task))
        for row in in_batches(rows, work, self._num_cpus):
            self._count(row["broken"])
            yield to_batch(row).to(device)

    def _count(self, broken: Sequence[str]) -> None:
        """Counts unusable pictures once each, and names the first few."""
        for reason in set(broken) - self._broken:
            self._broken.add(reason)
            if len(self._broken) <= MAX_NAMED:
                say(f"left out: {reason}")


def _load(row: dict[str, Any], task: GradaTask) -> dict[str, Any]:
    """Batch of a share; an unusable picture becomes a black one without labels."""
    examples, broken = [], []
    for item in row["share"]:
        try:
            examples.append(task.example(item, (0, 1)))
        except ImageError as error:
            broken.append(str(error))
            examples.append(task.blank())
    return to_row(collate(examples, 1)) | {"broken": broken}


def check_pictures(row: dict[str, Any], task: GradaTask) -> dict[str, Any]:
    """Reads all pictures of an item: which ones are usable, and the errors of the others."""
    usable, broken = [], []
    for number in range(len(row["item"].uris)):
        try:
            task.example(row["item"], (number, number + 1))
            usable.append(True)
        except ImageError as error:
            usable.append(False)
            broken.append(str(error))
    return {"usable": usable, "broken": broken}
