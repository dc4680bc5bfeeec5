"""One fit loop for every model: plain torch, one device, and any number of processes that torch.distributed joins.

With W processes every batch is shared out, predictions are gathered with their gradient and the loss is that of the
whole batch, as is batch normalisation: W changes the speed, the draws of dropout and noise, and nothing else, but for
what fills up the shares of a batch that W does not divide, which batch normalisation sees. Scores come from merged
moments: every frame counts once.
"""

import copy
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.nn
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from affect.concordance import Moments, hybrid_loss, merge
from affect.config import Fit
from affect.layers import Output

MAX_NAN_STEPS = 3
MIN_LEARNING_RATE = 1e-7

Window = tuple[int, int]


class Example(NamedTuple):
    """One window, padded.

    Args:
        inputs: arrays by name, without the batch axis.
        gold: what the task's loss wants per point, valence and arousal first; NaN where a point that counts lacks one.
        annotated: which points count.
    """

    inputs: dict[str, ndarray]
    gold: Float[ndarray, "T targets"]
    annotated: Bool[ndarray, " T"]


class Share(NamedTuple):
    """What one process does of a batch.

    Args:
        samples: items with one window each.
        length: points of the batch's longest window.
    """

    samples: list[tuple[Any, Window]]
    length: int


class Batch(NamedTuple):
    """A share as tensors on the device.

    Args:
        inputs: tensors by name.
        gold: as in :class:`Example`.
        annotated: as in :class:`Example`.
    """

    inputs: dict[str, Tensor]
    gold: Float[Tensor, "B T targets"]
    annotated: Bool[Tensor, "B T"]


class Outputs(NamedTuple):
    """Outputs of an item's windows, paddings included.

    Args:
        windows: the windows.
        predictions: one (T, 2) per window.
        embeddings: one (T, H) per window.
    """

    windows: list[Window]
    predictions: list[ndarray]
    embeddings: list[ndarray]


class Task(ABC):
    """How one model is fed, and how its outputs become frames.

    It learns from items, such as tracks: anything with a ``name`` and ``gold`` values per frame, NaN where there is
    none.
    """

    settings: Fit
    """How the model is trained."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Make the model with fresh weights."""

    @abstractmethod
    def windows(self, item: Any) -> list[Window]:  # noqa: ANN401 -- each task has its own kind of item
        """List the windows ``[start, end)`` that together cover an item; none if there is no evidence at all."""

    @abstractmethod
    def trains_on(self, item: Any, window: Window) -> bool:  # noqa: ANN401
        """Say whether a window is trained on."""

    @abstractmethod
    def example(self, item: Any, window: Window, length: int) -> Example:  # noqa: ANN401
        """Cut a window's arrays out, padded to ``length``, the longest of its batch."""

    @abstractmethod
    def predict(self, item: Any, outputs: Outputs) -> Float[ndarray, "frames 2"]:  # noqa: ANN401
        """Join the windows' outputs to valence and arousal of every frame."""

    def copies(self, item: Any) -> float:  # noqa: ANN401
        """How often an item's windows are seen in an epoch, on average."""
        return 1.0

    def loss(
        self,
        gold: Float[Tensor, "B T targets"],
        prediction: Float[Tensor, "B T outputs"],
        annotated: Bool[Tensor, "B T"],
    ) -> Float[Tensor, ""] | None:
        """Loss of a whole batch: the hybrid CCC loss; None if nothing in it is annotated."""
        return hybrid_loss(gold, prediction, annotated, self.settings.loss)

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """AdamW's parameter groups: all parameters at one learning rate."""
        return [{"params": list(model.parameters()), "lr": self.settings.learning_rate}]

    def augment(self, inputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Inputs of a training batch with noise: none."""
        return inputs

    def forward(self, model: nn.Module, inputs: dict[str, Tensor]) -> Output:
        """Run the model on a batch: inputs by the names of its arguments."""
        result = model(**inputs)
        return Output(result.prediction, result.embedding)


Loader = Callable[[Task, Sequence[Share], torch.device], Iterator[Batch]]
"""Makes the examples of shares and collates each share into a batch, in order."""


def load_here(task: Task, shares: Sequence[Share], device: torch.device) -> Iterator[Batch]:
    """Make examples in this process, when they are asked for."""
    for samples, length in shares:
        yield collate([task.example(item, window, length) for item, window in samples], device)


class Epoch(NamedTuple):
    """One pass over the training windows.

    Args:
        number: from 1.
        loss: mean over the steps.
        ccc: valence, arousal and mean on the development items, (3,).
        learning_rate: of the first parameter group.
        seconds: it took.
        skipped: steps skipped because their loss was not finite.
    """

    number: int
    loss: float
    ccc: ndarray
    learning_rate: float
    seconds: float
    skipped: int


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


def world() -> tuple[int, int]:
    """This process' number and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def fit(
    task: Task,
    training: Sequence[Any],
    development: Sequence[Any],
    *,
    device: torch.device,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    loader: Loader = load_here,
) -> Fitted:
    """Train until the development score has not risen for ``stop_patience`` epochs.

    Args:
        task: the model and how it is fed.
        training: items to learn from.
        development: items to select the epoch on.
        device: where.
        on_epoch: called after every epoch, by every process.
        loader: makes the batches.

    Raises:
        ValueError: nothing to train on or to select on, or nothing of it can be used.
        FloatingPointError: the loss was not finite three steps in a row; names the items.
    """
    rank, processes = world()
    settings = task.settings
    samples = [(item, w) for item in training for w in task.windows(item) if task.trains_on(item, w)]
    if not samples or not any(np.isfinite(item.gold).all(axis=1).any() for item in development):
        raise ValueError(
            f"{len(samples)} annotated training windows, {len(development)} development tracks: nothing to fit"
        )
    torch.manual_seed(settings.seed)
    model = task.build().to(device)
    torch.manual_seed(settings.seed + 1 + rank)  # same weights everywhere, own dropout
    np.random.seed(settings.seed + 1 + rank)  # transformers' SpecAugment draws from numpy
    if processes > 1:
        model = synchronise(model, device)
    trained: nn.Module = DistributedDataParallel(model) if processes > 1 else model
    average = (
        AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay), use_buffers=True)
        if settings.ema_decay
        else None
    )
    groups = task.parameter_groups(model)
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    scheduler = _scheduler(optimizer, settings)
    order = torch.Generator().manual_seed(settings.seed)
    noise = torch.Generator().manual_seed(settings.seed + 1 + rank)

    history: list[Epoch] = []
    in_a_row = 0  # losses that were not finite
    best, weights = Epoch(0, np.nan, np.full(3, -np.inf), 0.0, 0.0, 0), copy.deepcopy(model.state_dict())
    for number in range(1, settings.max_epochs + 1):
        start = time.monotonic()
        trained.train()
        losses: list[float] = []
        skipped = 0
        seen = _repeated(task, samples, order)
        batches = list(_batches(seen, settings.batch_size, order)) if seen else []
        shares = [_share(batch, rank, processes) for batch in batches]
        for batch, share in zip(batches, loader(task, shares, device), strict=True):
            loss = _loss(task, trained, share, len(batch[rank::processes]), noise)
            if loss is None:
                continue
            if not torch.isfinite(loss):
                skipped, in_a_row = skipped + 1, in_a_row + 1
                if in_a_row == MAX_NAN_STEPS:
                    names = sorted({item.name for item, _ in batch})
                    raise FloatingPointError(
                        f"loss {loss.item()} {MAX_NAN_STEPS} steps in a row, last on {', '.join(names)}"
                    )
                continue
            in_a_row = 0
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if settings.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            if average:
                average.update_parameters(model)
            losses.append(float(loss.detach()))
        if not losses and not skipped:
            raise ValueError("not one batch holds anything that is annotated and can be used: nothing to fit")
        judged = average.module if average else model
        ccc = evaluate(task, judged, development, device, loader)
        rate = float(optimizer.param_groups[0]["lr"])
        epoch = Epoch(
            number, float(np.mean(losses)) if losses else np.nan, ccc, rate, time.monotonic() - start, skipped
        )
        history.append(epoch)
        on_epoch(epoch)
        if scheduler:
            scheduler.step(float(ccc[2]))
        if ccc[2] > best.ccc[2]:
            best, weights = epoch, copy.deepcopy(judged.state_dict())
        elif number - best.number >= settings.stop_patience:
            break
    model.load_state_dict(weights)
    return Fitted(model.eval(), history, best)


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the shares of all processes together, on a CPU, where torch has none.

        y = (x - mean) / sqrt(var + eps) * weight + bias,   mean and var over everyone's points

    Source: torch.nn.SyncBatchNorm, which refuses tensors on a CPU.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of axes."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, ...) over every axis but the second."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = x.numel() // x.shape[1] * world()[1]
        mean = _sum_over_processes(x.sum(dim=axes)) / count
        centred = x - mean.view(shape)
        var = _sum_over_processes(centred.square().sum(dim=axes)) / count
        with torch.no_grad():
            momentum = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(var * count / max(1, count - 1), momentum)
            self.num_batches_tracked.add_(1)
        return centred * (self.weight * (var + self.eps).rsqrt()).view(shape) + self.bias.view(shape)


def _sum_over_processes(value: Tensor) -> Tensor:
    """Sum with its gradient."""
    return dist.nn.functional.all_reduce(value)


def synchronise(model: nn.Module, device: torch.device) -> nn.Module:
    """Let batch normalisation see the whole batch and not a process' share of it; names of the state stay."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.__class__ = GlobalBatchNorm
    return model


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


def _loss(task: Task, model: nn.Module, share: Batch, num_own: int, noise: torch.Generator) -> Tensor | None:
    """Loss over the whole batch, of which this process computes its share."""
    _, processes = world()
    inputs, gold, annotated = share
    annotated[num_own:] = False  # what fills a share up does not count
    prediction = task.forward(model, task.augment(inputs, noise)).prediction
    if processes > 1:
        prediction = torch.cat(dist.nn.functional.all_gather(prediction))
        gold, annotated = (_gather(value, processes) for value in (gold, annotated))
    return task.loss(gold, prediction, annotated)


def _gather(value: Tensor, processes: int) -> Tensor:
    parts = [torch.empty_like(value) for _ in range(processes)]
    dist.all_gather(parts, value.contiguous())
    return torch.cat(parts)


def collate(examples: Sequence[Example], device: torch.device) -> Batch:
    """Stack examples of one length into tensors."""
    names = examples[0].inputs
    inputs = {n: torch.from_numpy(np.stack([e.inputs[n] for e in examples])).to(device) for n in names}
    gold = torch.from_numpy(np.stack([e.gold for e in examples]).astype(np.float32)).to(device)
    annotated = torch.from_numpy(np.stack([e.annotated for e in examples])).to(device)
    return Batch(inputs, gold, annotated)


def run_all(
    task: Task, model: nn.Module, items: Sequence[Any], device: torch.device, loader: Loader = load_here
) -> Iterator[Outputs]:
    """Run a model over the windows of items, one item's outputs after the other's."""
    model.eval()
    size = task.settings.batch_size
    windows = [task.windows(item) for item in items]
    shares = [
        Share([(item, window) for window in own[i : i + size]], max(end - start for start, end in own[i : i + size]))
        for item, own in zip(items, windows, strict=True)
        for i in range(0, len(own), size)
    ]
    batches = loader(task, shares, device)
    for own in windows:
        outputs = Outputs(own, [], [])
        for _ in range(0, len(own), size):
            batch = next(batches)
            with torch.inference_mode():
                output = task.forward(model, batch.inputs)
            outputs.predictions.extend(output.prediction.float().cpu().numpy())
            outputs.embeddings.extend(output.embedding.float().cpu().numpy())
        yield outputs


def run(task: Task, model: nn.Module, item: Any, device: torch.device) -> Outputs:  # noqa: ANN401
    """Run a model over one item's windows."""
    return next(run_all(task, model, [item], device))


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
    _, processes = world()
    gathered: list[list[Moments]] = [list(own)]
    if processes > 1:
        gathered = [[] for _ in range(processes)]
        dist.all_gather_object(gathered, list(own))
    ccc = merge([moments for part in gathered for moments in part]).ccc()
    ccc = np.nan_to_num(ccc, nan=0.0)  # a constant prediction agrees with nothing
    return np.append(ccc, ccc.mean())
