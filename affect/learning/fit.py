"""One fit loop for every model: plain torch, one device, and any number of processes that torch.distributed joins.

With W processes every batch is shared out, predictions are gathered with their gradient and the loss is that of the
whole batch, as is batch normalisation: W changes the speed, the draws of dropout and noise, and nothing else, but for
what fills up the shares of a batch that W does not divide, which batch normalisation sees. Scores come from merged
moments: every frame counts once.

Training that was killed goes on from its last checkpoint and ends as it would have: bit by bit on a CPU.
"""

import copy
import ctypes
import itertools
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from affect.concordance import Moments, merge
from affect.learning import checkpoint
from affect.learning.batches import Batch, Loader, Share, Task, autocast, load_here, run_all
from affect.learning.distributed import gather, gather_lists, gather_with_gradient, synchronise, world
from affect.settings.training import Fit
from affect.storage import files

MAX_NAN_STEPS = 3


MIN_LEARNING_RATE = 1e-7


_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # of glibc's mallopt


def keep_freed_memory() -> None:
    """Keep what large tensors leave behind for the next step's, instead of asking the system for zeroed pages anew.

    At the paper's size a DCMMOE step on a CPU takes 10 s instead of 18. Does nothing where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)  # never


class Epoch(NamedTuple):
    """One pass over the training windows.

    Args:
        number: from 1.
        loss: mean over the steps.
        ccc: valence, arousal and mean on the development items, (3,).
        learning_rate: of the first parameter group.
        seconds: it took, since the last start.
        skipped: steps skipped because their loss was not finite, or a gradient beyond float16.
    """

    number: int
    loss: float
    ccc: ndarray
    learning_rate: float
    seconds: float
    skipped: int


class Step(NamedTuple):
    """One batch.

    Args:
        epoch: from 1.
        number: within the epoch, from 1.
        steps: of the epoch.
        loss: of the whole batch; None if nothing in it is annotated.
    """

    epoch: int
    number: int
    steps: int
    loss: float | None


class Fitted(NamedTuple):
    """A trained model.

    Args:
        model: with the best epoch's weights (their moving average where there is one).
        history: all epochs.
        best: the best epoch by the development items' mean CCC.
    """

    model: nn.Module
    history: list[Epoch]
    best: Epoch


class Keeper(NamedTuple):
    """Where a training saves what it needs to go on.

    Args:
        uri: the checkpoint.
        every: steps after which it is written, in the middle of an epoch too; every epoch ends with it.
    """

    uri: str
    every: int


def fit(
    task: Task,
    training: Sequence[Any],
    development: Sequence[Any],
    *,
    device: torch.device,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    on_step: Callable[[Step], None] = lambda _: None,
    loader: Loader = load_here,
    keeper: Keeper | None = None,
) -> Fitted:
    """Train until the development score has not risen for ``stop_patience`` epochs.

    Args:
        task: the model and how it is fed.
        training: items to learn from.
        development: items to select the epoch on.
        device: where.
        on_epoch: called after every epoch, by every process.
        on_step: called after every step, by every process.
        loader: makes the batches.
        keeper: where to go on from, if something is there, and to save to; nowhere if not given.

    Raises:
        ValueError: nothing to train on or to select on, or nothing of it can be used.
        FloatingPointError: the loss was not finite three steps in a row, or gradients are finite at no scale; names the
            items.
    """
    run = epochs(task, training, development, device=device, on_step=on_step, loader=loader, keeper=keeper)
    while True:
        try:
            epoch, new = next(run)
        except StopIteration as end:
            fitted: Fitted = end.value
            return fitted
        if new:
            on_epoch(epoch)


def epochs(
    task: Task,
    training: Sequence[Any],
    development: Sequence[Any],
    *,
    device: torch.device,
    on_step: Callable[[Step], None] = lambda _: None,
    loader: Loader = load_here,
    keeper: Keeper | None = None,
) -> Generator[tuple[Epoch, bool], None, Fitted]:
    """Train as :func:`fit` does, an epoch whenever one is asked for: several trainings can go on side by side.

    Args:
        task: as in :func:`fit`, and so are the others.
        training: the same.
        development: the same.
        device: the same.
        on_step: the same.
        loader: the same.
        keeper: the same.

    Yields:
        Each epoch and whether it is new: those before a checkpoint that training goes on from come again.

    Returns:
        The trained model.
    """
    samples = [(item, w) for item in training for w in task.windows(item) if task.trains_on(item, w)]
    _check(task, samples, training, development)
    state = _Training(task, device)
    if keeper and files.exists(keeper.uri):
        try:
            state.restore(files.read(keeper.uri))
        except (ValueError, RuntimeError, KeyError) as error:
            raise ValueError(f"{keeper.uri} cannot be gone on from, delete it to start anew: {error}") from error
    yield from ((epoch, False) for epoch in state.history)
    while not state.finished:
        state.epoch(samples, loader, on_step, keeper)
        judged = state.judged
        state.close_epoch(evaluate(task, judged, development, device, loader))
        state.save(keeper)
        yield state.history[-1], True
    state.model.load_state_dict(state.best_weights, strict=False)  # all but what is frozen
    return Fitted(state.model.eval(), state.history, state.best)


def _check(task: Task, samples: Sequence[Any], training: Sequence[Any], development: Sequence[Any]) -> None:
    """See that there is something to learn from and to select on.

    Raises:
        ValueError: there is not; says what is missing, in counts.
    """
    if not samples:
        raise ValueError(f"nothing to learn from: {task.census(training)}")
    if not any(task.windows(item) for item in development):
        raise ValueError(f"nothing to select on: {task.census(development)}")
    golds = [item.gold[np.isfinite(item.gold[:, :2]).all(axis=1)][:, :2] for item in development]
    if not any(len(gold) for gold in golds):
        raise ValueError(f"nothing to select on: none of {len(development)} development items is annotated")
    spread = np.ptp(np.concatenate(golds), axis=0)
    for name, width in zip(("valence", "arousal"), spread, strict=True):
        if width == 0:
            raise ValueError(
                f"{name} is constant in the development tracks: its CCC is undefined, nothing to select on"
            )


class _OnHost:
    """Numbers on their way from a device to this process, which goes on until it reads them."""

    def __init__(self, values: Tensor) -> None:
        """Queue the copy."""
        self._values = values.to("cpu", non_blocking=True)
        self._copied = torch.cuda.Event() if values.is_cuda else None
        if self._copied:
            self._copied.record()

    def read(self) -> list[float]:
        """Wait for the copy alone, not for what was queued after it."""
        if self._copied:
            self._copied.synchronize()
        numbers: list[float] = self._values.tolist()
        return numbers


class _Training:
    """A model, its optimiser, and where they are: what a checkpoint holds."""

    def __init__(self, task: Task, device: torch.device) -> None:
        """Start from fresh weights, the same in every process."""
        settings = task.settings
        torch.manual_seed(settings.seed)
        self.task, self.device, self.settings = task, device, settings
        self.rank, self.processes = world()
        model = task.build().to(device)
        if settings.precision == "float64":
            model = model.double()
        self.model: nn.Module = synchronise(model, device) if self.processes > 1 else model
        self.average = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay), use_buffers=True)
            if settings.ema_decay
            else None
        )
        groups = task.parameter_groups(self.model)
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.scheduler = _scheduler(self.optimizer, settings)
        # Does nothing but in float16.
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
        self.best = Epoch(0, np.nan, np.full(3, -np.inf), 0.0, 0.0, 0)
        self.best_weights = copy.deepcopy(checkpoint.changing(self.model))
        self.history: list[Epoch] = []
        self.losses: list[float] = []  # of the epoch under way
        self.steps = 0  # the same
        self.skipped = 0  # the same
        self.in_a_row = 0  # losses that were not finite
        self.trained: nn.Module | None = None
        self.started = time.monotonic()

    @property
    def judged(self) -> nn.Module:
        """What is validated and saved."""
        return self.average.module if self.average else self.model

    @property
    def finished(self) -> bool:
        """Whether the epochs are over, or the patience."""
        last = len(self.history)
        return last >= self.settings.max_epochs or (last > 0 and last - self.best.number >= self.settings.stop_patience)

    def epoch(
        self, samples: Sequence[Any], loader: Loader, on_step: Callable[[Step], None], keeper: Keeper | None
    ) -> None:
        """Go on to the epoch's end.

        Raises:
            FloatingPointError: the loss was not finite three steps in a row.
            ValueError: not one batch holds anything annotated.
        """
        self.started = time.monotonic()
        trained = self._prepared()
        trained.train()
        number = len(self.history) + 1
        order = torch.Generator().manual_seed(checkpoint.seed_of(checkpoint.ORDER, self.settings.seed, number))
        seen = _repeated(self.task, list(samples), order)
        batches = list(_batches(seen, self.settings.batch_size, order)) if seen else []
        todo = batches[self.steps :]
        shares = [_share(batch, self.rank, self.processes) for batch in todo]
        for batch, share in zip(todo, loader(self.task, shares, self.device), strict=True):
            loss = self._step(*self._loss(trained, share, len(batch[self.rank :: self.processes]), number), batch)
            self.steps += 1
            on_step(Step(number, self.steps, len(batches), loss))
            if keeper and self.steps % keeper.every == 0 and self.steps < len(batches):
                self.save(keeper)
        if not self.losses and not self.skipped:
            raise ValueError("not one batch holds anything that is annotated and can be used: nothing to fit")

    def _prepared(self) -> nn.Module:
        """The model as it is trained: joined with the other processes', and compiled if it shall be."""
        if self.trained is None:
            trained: nn.Module = DistributedDataParallel(self.model) if self.processes > 1 else self.model
            self.trained = torch.compile(trained) if self.settings.compile else trained  # type: ignore[assignment]
        assert self.trained is not None
        return self.trained

    def _loss(self, trained: nn.Module, share: Batch, num_own: int, epoch: int) -> tuple[Tensor, Tensor]:
        """Loss over the whole batch, of which this process computes its share, and how many points it is of."""
        seed = checkpoint.seed_of(checkpoint.STEP, self.settings.seed, epoch, self.steps, self.rank)
        torch.manual_seed(seed)  # dropout; each process has its own
        np.random.seed(seed % 2**32)  # transformers' SpecAugment draws from numpy
        share.annotated[num_own:] = False  # what fills a share up does not count
        share = share.like(self.model)
        share = share._replace(inputs=self.task.augment(share.inputs, torch.Generator().manual_seed(seed)))
        with autocast(self.settings, self.device):
            prediction = self.task.forward(trained, share).prediction
        prediction = gather_with_gradient(prediction)
        annotated = gather(share.annotated)
        return self.task.loss(gather(share.gold), prediction, annotated), annotated.sum()

    def _step(self, loss: Tensor, count: Tensor, batch: Sequence[Any]) -> float | None:
        """Follow the gradient, unless there is none; returns the loss, None if nothing in the batch is annotated.

        Whether there is one is looked at when the backward pass has been queued: a GPU computes it meanwhile.
        """
        told = _OnHost(torch.stack([loss.detach().double(), count.double()]))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        value, num_points = told.read()
        if not num_points:
            return None
        if not math.isfinite(value):
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
            if self.in_a_row == MAX_NAN_STEPS:
                raise FloatingPointError(f"loss {value} {MAX_NAN_STEPS} steps in a row, last on {_names(batch)}")
            return value
        self.in_a_row = 0
        self.scaler.unscale_(self.optimizer)
        if self.settings.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() < scale:  # a gradient beyond float16: the step was not taken, the next scale is half
            self.skipped += 1
            if self.scaler.get_scale() < 1:
                raise FloatingPointError(f"gradients are finite at no scale, last on {_names(batch)}")
            return value
        if self.average:
            self.average.update_parameters(self.model)
        self.losses.append(value)
        return value

    def close_epoch(self, ccc: Float[ndarray, " 3"]) -> None:
        """Note an epoch that was judged, and keep its weights if they are the best."""
        rate = float(self.optimizer.param_groups[0]["lr"])
        loss = float(np.mean(self.losses)) if self.losses else np.nan
        seconds = time.monotonic() - self.started
        self.history.append(Epoch(len(self.history) + 1, loss, ccc, rate, seconds, self.skipped))
        self.losses, self.steps, self.skipped = [], 0, 0
        if self.scheduler:
            self.scheduler.step(float(ccc[2]))
        if ccc[2] > self.best.ccc[2]:
            self.best, self.best_weights = self.history[-1], copy.deepcopy(checkpoint.changing(self.judged))

    def save(self, keeper: Keeper | None) -> None:
        """Write a checkpoint; the first process does."""
        if keeper is None or self.rank:
            return
        tensors = checkpoint.named("model", checkpoint.changing(self.model))
        tensors |= checkpoint.named("best", self.best_weights)
        tensors |= checkpoint.named("optimizer", checkpoint.optimizer_tensors(self.optimizer))
        if self.average:
            tensors |= checkpoint.named("average", checkpoint.changing(self.average))
        note = {
            "history": [epoch._asdict() | {"ccc": epoch.ccc.tolist()} for epoch in self.history],
            "best": self.best.number,
            "rates": [group["lr"] for group in self.optimizer.param_groups],
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "scaler": self.scaler.state_dict(),
            **{name: getattr(self, name) for name in ("losses", "steps", "skipped", "in_a_row")},
        }
        files.write(keeper.uri, checkpoint.encode(tensors, note))

    def restore(self, content: bytes) -> None:
        """Go on where :meth:`save` was."""
        tensors, note = checkpoint.decode(content)
        if missing := sorted(checkpoint.named("model", checkpoint.changing(self.model)).keys() - tensors.keys()):
            raise ValueError(f"tensor {missing[0]} is missing")
        self.model.load_state_dict(checkpoint.part("model", tensors), strict=False)
        self.best_weights = {n: v.to(self.device) for n, v in checkpoint.part("best", tensors).items()}
        checkpoint.restore_optimizer(self.optimizer, checkpoint.part("optimizer", tensors), note["rates"])
        if self.average:
            self.average.load_state_dict(checkpoint.part("average", tensors), strict=False)
        if self.scheduler:
            self.scheduler.load_state_dict(note["scheduler"])
        self.scaler.load_state_dict(note["scaler"])
        self.history = [Epoch(**{**epoch, "ccc": np.array(epoch["ccc"])}) for epoch in note["history"]]
        self.best = self.history[note["best"] - 1] if note["best"] else self.best
        for name in ("losses", "steps", "skipped", "in_a_row"):
            setattr(self, name, note[name])


def _names(batch: Sequence[Any]) -> str:
    return ", ".join(sorted({item.name for item, _ in batch}))


def _scheduler(optimizer: torch.optim.Optimizer, settings: Fit) -> ReduceLROnPlateau | None:
    """Lower the learning rate on a plateau; groups with a rate of their own keep it."""
    if settings.plateau_factor is None:
        return None
    floors = [MIN_LEARNING_RATE if g["lr"] == settings.learning_rate else g["lr"] for g in optimizer.param_groups]
    patience, threshold = settings.plateau_patience, settings.plateau_threshold
    return ReduceLROnPlateau(optimizer, "max", settings.plateau_factor, patience, threshold, min_lr=floors)


def _batches(samples: list[Any], size: int, generator: torch.Generator) -> Iterator[list[Any]]:
    """Shuffled batches; a single sample left over joins the last one, since a batch's statistics need two."""
    shuffled = [samples[j] for j in torch.randperm(len(samples), generator=generator).tolist()]
    edges = [*range(0, max(1, len(samples) - 1), size), len(samples)]
    for start, end in itertools.pairwise(edges):
        yield shuffled[start:end]


def _repeated(task: Task, samples: list[Any], generator: torch.Generator) -> list[Any]:
    """Samples as often as their items want to be seen; the broken part of a number is drawn anew."""
    copies = torch.tensor([task.copies(item) for item, _ in samples])
    if (copies == 1).all():
        return samples
    times = (copies + torch.rand(len(samples), generator=generator)).floor().int().tolist()
    return [sample for sample, number in zip(samples, times, strict=True) for _ in range(number)]


def _share(batch: list[Any], rank: int, processes: int) -> Share:
    """A process' part of a batch; all parts have one size, the batch's first samples fill them up."""
    own = batch[rank::processes]
    surplus = -(-len(batch) // processes) - len(own)
    return Share(own + batch[:surplus], max(end - start for _, (start, end) in batch))


def evaluate(
    task: Task, model: nn.Module, items: Sequence[Any], device: torch.device, loader: Loader = load_here
) -> Float[ndarray, " 3"]:
    """Frame-wise CCC of valence, of arousal and their mean over all items, each seen by one process."""
    rank, processes = world()
    own = items[rank::processes]
    outputs = run_all(task, model, own, device, loader)
    return score([Moments.of(i.gold, task.predict(i, out)) for i, out in zip(own, outputs, strict=True)])


def score(own: Sequence[Moments]) -> Float[ndarray, " 3"]:
    """CCC of valence, of arousal and their mean, from the moments that each process has."""
    ccc = merge(gather_lists(list(own))).ccc()
    ccc = np.nan_to_num(ccc, nan=0.0)  # a constant prediction agrees with nothing
    return np.append(ccc, ccc.mean())
