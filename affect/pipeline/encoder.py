"""Training the frame encoder on labelled pictures.

manifests --> order of the epoch's batches --> Ray Data reads and cuts --> Ray Train workers --> checkpoint
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy import ndarray
from torch import nn

from affect import concordance, weights
from affect.concordance import Moments, Score
from affect.corpus.images import ImageError, Images, read_manifest
from affect.face import grada
from affect.face.encoder_task import GradaTask
from affect.learning import batches, distributed
from affect.learning.batches import Batch, Loader, Share, Task, collate
from affect.learning.fit import CheckpointFile, fit, keep_freed_memory
from affect.learning.observer import Observer
from affect.pipeline.cluster import WORKERS_ADVICE, check_room, shares_of
from affect.pipeline.stream import in_batches, in_order, to_batch, to_row
from affect.pipeline.workers import device_of, on_workers
from affect.progress import say
from affect.settings.address import address
from affect.settings.encoder import EncoderRun
from affect.settings.names import EXPRESSIONS
from affect.settings.training import Workers
from affect.storage import files, schema

MAX_NAMED = 3
"""Pictures that cannot be used are named up to this number."""
NUM_UNITS = 100
"""Units of the pictures without persons of a data set, for the interval."""


class Judged(NamedTuple):
    """How an encoder does on labelled pictures.

    Args:
        affect_loss: of valence and arousal, over all pictures at once; NaN where none is labelled with them.
        expression_loss: cross-entropy; NaN where none is labelled with an expression.
        macro_f1: mean over the expressions that occur; NaN likewise.
        score: CCC of valence, arousal and their mean with an interval over people, or over parts of the pictures of
            people unknown; None where none is labelled.
    """

    affect_loss: float
    expression_loss: float
    macro_f1: float
    score: Score | None


def train_on(
    run: EncoderRun, images: Sequence[str], development: Sequence[str], held_out: Sequence[str], runs: str
) -> str:
    """Train a frame encoder on manifests, unless it is there.

    Args:
        run: the run.
        images: manifests to learn from.
        development: manifests to select the epoch on.
        held_out: manifests to report on.
        runs: where encoders go.

    Returns:
        The checkpoint's folder.

    Raises:
        ValueError: a manifest is wrong, or nothing can be learned or selected.
    """
    sets = (images, development, held_out)
    content = [[(_folder(path), hashlib.sha256(files.read(path)).hexdigest()) for path in paths] for paths in sets]
    trunk = weights.identity(run.trunk) if run.trunk else ""
    settings = replace(run, trunk="", workers=Workers())
    folder = files.join(files.absolute(runs), "grada", address(schema.VERSION, settings, trunk, content))
    if files.exists(files.join(folder, "config.json")):
        say(f"train grada: there already, {folder}")
    else:
        training, selection, report = ([i for path in paths for i in read_manifest(path)] for paths in sets)
        train_encoder(run, training, selection, report, folder)
    say(f"grada: use it with --face.weights {folder} --face.crop-px {run.shape.crop_px}")
    return folder


def _folder(manifest: str) -> str:
    """Where a manifest's pictures are: the same lines elsewhere mean other pictures."""
    return files.absolute(manifest).rpartition("/")[0]


def train_encoder(
    run: EncoderRun,
    training: Sequence[Images],
    development: Sequence[Images],
    held_out: Sequence[Images],
    folder: str,
) -> None:
    """Train a frame encoder and say what it learned.

    Args:
        run: the run.
        training: pictures to learn from.
        development: pictures of other people to select the epoch on; some need valence and arousal.
        held_out: pictures of yet other people, which nothing is selected on; may be none.
        folder: gets ``history.json``, ``report.json``, ``model.safetensors`` and, last, ``config.json``.

    Raises:
        ValueError: a person of one set is in another, nothing can be learned or selected, or the workers leave no CPU
            to read pictures with.
    """
    sets = {"training": training, "development": development, "held out": held_out}
    _check_people(sets)
    known = {item.dataset for item in training}
    if unknown := set(run.dataset_weights) - known:
        raise ValueError(f"dataset_weights of {', '.join(sorted(unknown))}: training has {', '.join(sorted(known))}")
    check_room(shares_of(run.workers, read=True), WORKERS_ADVICE)
    counts = ", ".join(f"{sum(len(item.uris) for item in items)} {name}" for name, items in sets.items())
    say(f"train grada: pictures {counts}")
    job = {"run": run, "training": list(training)}
    job |= {name: _readable(items, run) for name, items in (("development", development), ("held_out", held_out))}
    on_workers(_train, job | {"folder": folder}, run.workers, "grada", folder)


def _check_people(sets: dict[str, Sequence[Images]]) -> None:
    seen: dict[str, str] = {}
    for name, items in sets.items():
        for item in items:
            if item.name != item.dataset and seen.setdefault(item.name, name) != name:
                raise ValueError(f"person {item.name} is in the {seen[item.name]} set and in the {name} set")
            for uri in item.uris:
                if seen.setdefault(uri, name) != name:
                    raise ValueError(f"{uri} is in the {seen[uri]} set and in the {name} set")


def _train(job: dict[str, Any]) -> None:
    """One process' share of the training; the first one judges and writes."""
    run = cast(EncoderRun, job["run"])
    keep_freed_memory()
    task, device = GradaTask(run), device_of(run.workers)
    rank, _ = distributed.world()
    loader = ImageLoader(run.workers.loader_cpus)
    checkpoint_file = CheckpointFile(files.join(job["folder"], "checkpoint.safetensors"), run.workers.checkpoint_steps)
    with Observer("grada", job["folder"], run.fit.max_epochs, rank) as observer:
        fitted = fit(
            task,
            job["training"],
            job["development"],
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
    for name in ("development", "held_out"):
        if items := job[name]:
            before, after = (judge(task, model, items, device, loader) for model in (untrained, fitted.model))
            report[name] = {"untrained": _plain(before), "trained": _plain(after)}
            _say(name, before, after, _kind(items))
    assert isinstance(fitted.model, grada.Grada)
    report["left_out"] = loader.num_broken
    history = [{"epoch": e.number, "loss": e.loss, "ccc": e.ccc.tolist(), "skipped": e.skipped} for e in fitted.history]
    if loader.num_broken > MAX_NAMED:
        say(f"left out: {loader.num_broken} pictures in all")
    files.write(files.join(job["folder"], "history.json"), json.dumps(history, indent=1).encode())
    files.write(files.join(job["folder"], "report.json"), json.dumps(report, indent=1).encode())
    grada.save(fitted.model, job["folder"])
    files.delete(checkpoint_file.uri)


def judge(task: GradaTask, model: nn.Module, items: Sequence[Images], device: torch.device, loader: Loader) -> Judged:
    """Losses of both tasks, expressions' macro F1, and CCC with an interval over people, or parts of the pictures."""
    outputs = [np.concatenate(out.predictions) for out in batches.run_all(task, model, items, device, loader)]
    predicted = np.concatenate(outputs)
    gold = np.concatenate([item.targets for item in items])
    tensors = [torch.from_numpy(values.astype(np.float32))[None] for values in (gold, predicted)]
    losses = task.losses(tensors[0], tensors[1], torch.ones(1, len(gold), dtype=torch.bool))
    units: dict[str, list[Moments]] = {}
    for item, out in zip(items, outputs, strict=True):
        for unit, part in _independent(item):
            units.setdefault(unit, []).append(Moments.of(item.gold[part], out[part, :2]))
    moments = [concordance.merge(parts) for parts in units.values()]
    score = concordance.score(moments) if any(part.count for part in moments) else None
    f1 = _macro_f1(gold[:, 2], predicted[:, 2:].argmax(axis=1))
    labelled = ~np.isnan(gold[:, [0, 2]]).all(axis=0)
    affect_loss, expression_loss = (
        float(loss) if there else np.nan for loss, there in zip(losses, labelled, strict=True)
    )
    return Judged(affect_loss, expression_loss, f1, score)


def _independent(item: Images) -> list[tuple[str, slice]]:
    """What is left out as a whole for the interval: a person, or a hundredth of the pictures of people unknown."""
    if item.name != item.dataset:
        return [(item.name, slice(None))]
    return [(f"{item.name} {i}", slice(i, None, NUM_UNITS)) for i in range(min(NUM_UNITS, len(item.uris)))]


def _macro_f1(gold: ndarray, predicted: ndarray) -> float:
    """Mean F1 over the expressions that occur in the gold labels; torchmetrics is no dependency for six lines."""
    scores = []
    for number in range(len(EXPRESSIONS)):
        real, said = gold == number, (predicted == number) & ~np.isnan(gold)
        if real.any():
            scores.append(2 * float((real & said).sum()) / float(real.sum() + said.sum()))
    return float(np.mean(scores)) if scores else float("nan")


def _kind(items: Sequence[Images]) -> str:
    """Kinds of the units that :func:`_independent` makes of annotated items."""
    annotated = [item for item in items if not np.isnan(item.gold).any(axis=1).all()]
    kinds = {"people" if item.name != item.dataset else "parts of the pictures" for item in annotated}
    return " and ".join(sorted(kinds, reverse=True))


def _say(name: str, before: Judged, after: Judged, units: str) -> None:
    selected = " (selected on it)" if name == "development" else ""
    say(f"train grada: {name.replace('_', '-')} people{selected}, before -> after training")
    say(f"  valence and arousal loss {before.affect_loss:.3f} -> {after.affect_loss:.3f}")
    say(f"  expression cross-entropy {before.expression_loss:.3f} -> {after.expression_loss:.3f}")
    say(f"  expression macro F1      {before.macro_f1:.3f} -> {after.macro_f1:.3f}")
    for index, dimension in enumerate(("valence", "arousal", "mean")):
        if before.score and after.score:
            first, last = (s.text(index, units) for s in (before.score, after.score))
            say(f"  CCC {dimension:<8} {first} -> {last}, 95 % over {after.score.num_units} {units}")


def _plain(judged: Judged) -> dict[str, Any]:
    """As JSON has it: null for what is not known."""
    score = judged.score and {name: _number(value) for name, value in asdict(judged.score).items()}
    return {name: _number(value) for name, value in judged._asdict().items() if name != "score"} | {"score": score}


def _number(value: Any) -> Any:  # noqa: ANN401 -- a number or an array of them
    if np.ndim(value):
        return [_number(part) for part in value]
    return None if np.isnan(value) else float(value)


def _readable(items: Sequence[Images], run: EncoderRun) -> list[Images]:
    """Items without the pictures that cannot be used, which are said: what is scored has to be there."""
    rows = [{"item": item} for item in items]
    checked = in_order(rows, min(len(rows), 64), partial(_check, task=GradaTask(run)), run.workers.loader_cpus)
    usable, broken = [], []
    for item, row in zip(items, checked, strict=True):
        broken += list(row["broken"])
        kept = np.array(row["kept"], dtype=bool)
        if kept.all():
            usable.append(item)
        elif kept.any():
            usable.append(item.keep(kept))
    for reason in broken[:MAX_NAMED]:
        say(f"left out: {reason}")
    if len(broken) > MAX_NAMED:
        say(f"left out: {len(broken)} pictures in all")
    return usable


def _check(row: dict[str, Any], task: GradaTask) -> dict[str, Any]:
    kept, broken = [], []
    for number in range(len(row["item"].uris)):
        try:
            task.example(row["item"], (number, number + 1))
            kept.append(True)
        except ImageError as error:
            kept.append(False)
            broken.append(str(error))
    return {"kept": kept, "broken": broken}


class ImageLoader:
    """Reads pictures with Ray Data, some batches ahead of the model.

    A picture that cannot be used is left out of the loss; the first few are named, all are counted.

    Args:
        num_cpus: of one reading task.
    """

    def __init__(self, num_cpus: float) -> None:
        """Start counting."""
        self._num_cpus = num_cpus
        self._broken: set[str] = set()

    @property
    def num_broken(self) -> int:
        """Pictures that could not be used so far."""
        return len(self._broken)

    def __call__(self, task: Task, shares: Sequence[Share], device: torch.device) -> Iterator[Batch]:
        """Batches of the shares, in order."""
        rows = [{"share": [item.cut(*window) for item, window in share.samples]} for share in shares]
        work = partial(_load, task=cast(GradaTask, task))
        for row in in_batches(rows, work, self._num_cpus):
            self._count(row["broken"])
            yield to_batch(row).to(device)

    def _count(self, broken: Sequence[str]) -> None:
        for reason in set(broken) - self._broken:
            self._broken.add(reason)
            if len(self._broken) <= MAX_NAMED:
                say(f"left out: {reason}")


def _load(row: dict[str, Any], task: GradaTask) -> dict[str, Any]:
    """Make a share's examples; a picture that cannot be used becomes a black one without a label."""
    examples, broken = [], []
    for item in row["share"]:
        try:
            examples.append(task.example(item, (0, 1)))
        except ImageError as error:
            broken.append(str(error))
            examples.append(task.blank())
    return to_row(collate(examples, 1)) | {"broken": broken}
