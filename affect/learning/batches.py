"""Tasks and batches: windows of items as padded tensors, prepared in a thread ahead of the model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor, nn

from affect.concordance import hybrid_loss
from affect.corpus.prefetch import prefetch
from affect.layers import FusionOutput, Output
from affect.settings.training import Fit

BATCHES_AHEAD = 4
"""Most batches that are prepared ahead of the model."""

Window = tuple[int, int]
"""Points ``[start, end)`` of an item."""
Arrays = ndarray | tuple[ndarray, ...]
"""An array, or several that are concatenated along their last axis."""


class Example(NamedTuple):
    """One window, not padded yet.

    Args:
        inputs: arrays by name; the first axis is the window's points.
        gold: targets of the task's loss per point, valence and arousal first; NaN where a point has none.
        annotated: true for points that count in the loss.
        whole: arrays by name without an axis of points, of the same shape in every window.
    """

    inputs: dict[str, Arrays]
    gold: Float[ndarray, "T targets"]
    annotated: Bool[ndarray, " T"]
    whole: dict[str, Arrays] = {}  # noqa: RUF012 -- a default that nobody writes to


class Share(NamedTuple):
    """The part of a batch that one process computes.

    Args:
        samples: pairs of an item and one of its windows.
        length: points of the longest window of the whole batch.
    """

    samples: list[tuple[Any, Window]]
    length: int


class Batch(NamedTuple):
    """A share as tensors.

    Args:
        inputs: tensors by name.
        padding: true for points past the end of a window.
        gold: as in :class:`Example`.
        annotated: as in :class:`Example`.
    """

    inputs: dict[str, Tensor]
    padding: Bool[Tensor, "B T"]
    gold: Float[Tensor, "B T targets"]
    annotated: Bool[Tensor, "B T"]

    def to(self, device: torch.device) -> "Batch":
        """Copies the batch to a device."""
        inputs = {name: value.to(device, non_blocking=True) for name, value in self.inputs.items()}
        padding, gold, annotated = (value.to(device, non_blocking=True) for value in self[1:])
        return Batch(inputs, padding, gold, annotated)

    def cast_like(self, model: nn.Module) -> "Batch":
        """Converts floating-point inputs and targets to the model's dtype."""
        kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        inputs = {n: value.to(kind) if value.is_floating_point() else value for n, value in self.inputs.items()}
        return self._replace(inputs=inputs, gold=self.gold.to(kind))


class Outputs(NamedTuple):
    """Outputs of an item's windows, padding included.

    Args:
        windows: the windows.
        predictions: one (T, 2) per window.
        embeddings: one (T, H) per window.
        gates: one (T, E) per window of a fusion; empty for other models.
    """

    windows: list[Window]
    predictions: list[ndarray]
    embeddings: list[ndarray]
    gates: list[ndarray]


class Task(ABC):
    """Builds a model, its inputs, targets and loss, and joins its outputs to frames.

    Items are what it learns from, such as tracks: any object with a ``name`` and ``gold`` values per frame, NaN where a
    frame is not annotated.
    """

    settings: Fit
    """Settings of the training."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Builds the model with untrained weights."""

    @abstractmethod
    def windows(self, item: Any) -> list[Window]:  # noqa: ANN401 -- each task has its own kind of item
        """Lists the windows ``[start, end)`` that together cover an item; none if it has no valid input."""

    @abstractmethod
    def trains_on(self, item: Any, window: Window) -> bool:  # noqa: ANN401
        """True if a window is used in training."""

    @abstractmethod
    def example(self, item: Any, window: Window) -> Example:  # noqa: ANN401
        """Cuts out a window's arrays, as views where possible."""

    @abstractmethod
    def predict(self, item: Any, outputs: Outputs) -> Float[ndarray, "frames 2"]:  # noqa: ANN401
        """Joins the windows' outputs to valence and arousal of every frame."""

    def describe_samples(self, items: Sequence[Any]) -> str:
        """Counts items, windows and annotated windows, for the error message when none is left."""
        windows = [(item, window) for item in items for window in self.windows(item)]
        annotated = sum(self.trains_on(*sample) for sample in windows)
        return f"{len(items)} items have {len(windows)} windows, {annotated} of them annotated"

    def repeats(self, item: Any) -> float:  # noqa: ANN401
        """Mean number of times that an item's windows are seen in an epoch."""
        return 1.0

    def loss(
        self,
        gold: Float[Tensor, "B T targets"],
        prediction: Float[Tensor, "B T outputs"],
        annotated: Bool[Tensor, "B T"],
    ) -> Float[Tensor, ""]:
        """Loss of a whole batch, by default the hybrid CCC loss; a constant if no point is annotated."""
        return hybrid_loss(gold, prediction, annotated, self.settings.loss)

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """AdamW's parameter groups; by default all parameters at one learning rate."""
        return [{"params": list(model.parameters()), "lr": self.settings.learning_rate}]

    def augment(self, inputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Augments the inputs of a training batch; by default returns them unchanged."""
        return inputs

    def forward(self, model: nn.Module, batch: Batch) -> Output | FusionOutput:
        """Calls the model with the inputs as keyword arguments."""
        return model(**batch.inputs)


Loader = Callable[[Task, Sequence[Share], torch.device], Iterator[Batch]]
"""Makes the examples of shares and collates each share into a batch, in the order of the shares."""


def load_here(task: Task, shares: Sequence[Share], device: torch.device) -> Iterator[Batch]:
    """Makes batches in a thread of this process, up to :data:`BATCHES_AHEAD` ahead of the model."""
    made = (_make(task, share, pinned=device.type == "cuda") for share in shares)
    for batch in prefetch(made, BATCHES_AHEAD):
        yield batch.to(device)


def _make(task: Task, share: Share, *, pinned: bool) -> Batch:
    batch = collate([task.example(item, window) for item, window in share.samples], share.length)
    if not pinned:
        return batch
    inputs = {name: value.pin_memory() for name, value in batch.inputs.items()}
    return Batch(inputs, *(value.pin_memory() for value in batch[1:]))


def collate(examples: Sequence[Example], length: int) -> Batch:
    """Copies examples into padded tensors; floating-point numbers become float32.

    Args:
        examples: one example or more.
        length: T, points that each window is padded to.
    """
    inputs = {n: _padded([e.inputs[n] for e in examples], length) for n in examples[0].inputs}
    whole = {n: _padded([e.whole[n] for e in examples]) for n in examples[0].whole}
    sizes = np.array([len(e.gold) for e in examples])
    padding = torch.from_numpy(np.arange(length) >= sizes[:, None])
    gold, annotated = (_padded(values, length) for values in zip(*(e[1:3] for e in examples), strict=True))
    return Batch(inputs | whole, padding, gold, annotated)


def _padded(values: Sequence[Arrays], length: int | None = None) -> Tensor:
    """Stacks arrays, tuples concatenated along the last axis, padded with zeros to ``length`` along the first."""
    rows = [value if isinstance(value, tuple) else (value,) for value in values]
    first = rows[0][0]
    shape = list(first.shape)
    if len(rows[0]) > 1:
        shape[-1] = sum(part.shape[-1] for part in rows[0])
    if length is not None:
        shape[0] = length
    kind = np.float32 if first.dtype.kind == "f" else first.dtype
    fills = length is None or all(len(parts[0]) == length for parts in rows)
    stacked = (np.empty if fills else np.zeros)((len(rows), *shape), dtype=kind)
    for i, parts in enumerate(rows):
        inside = stacked[i, ...] if length is None else stacked[i, : len(parts[0])]
        if len(parts) == 1:
            inside[...] = parts[0]
            continue
        start = 0
        for part in parts:
            inside[..., start : start + part.shape[-1]] = part
            start += part.shape[-1]
    return torch.from_numpy(stacked)


def autocast(settings: Fit, device: torch.device) -> torch.autocast:
    """Autocast context of ``settings.precision`` for a model's forward pass; losses are float32 or wider."""
    half = settings.precision in ("bfloat16", "float16") or (settings.precision == "auto" and device.type == "cuda")
    kind = torch.float16 if settings.precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, kind, enabled=half)


@contextmanager
def full_float32(settings: Fit) -> Iterator[None]:
    """With ``settings.precision`` float32, convolutions on a GPU do not round their inputs to TF32's eleven bits."""
    backend = torch.backends.cudnn
    before = backend.allow_tf32
    backend.allow_tf32 = before and settings.precision != "float32"
    try:
        yield
    finally:
        backend.allow_tf32 = before


def run_all(
    task: Task, model: nn.Module, items: Sequence[Any], device: torch.device, loader: Loader = load_here
) -> Iterator[Outputs]:
    """Runs a model in eval mode over the windows of items and yields each item's outputs."""
    model.eval()
    size = task.settings.batch_size
    windows = [task.windows(item) for item in items]
    shares = [
        Share(
            [(item, window) for window in item_windows[i : i + size]], max(b - a for a, b in item_windows[i : i + size])
        )
        for item, item_windows in zip(items, windows, strict=True)
        for i in range(0, len(item_windows), size)
    ]
    batches = loader(task, shares, device)
    for item_windows in windows:
        outputs = Outputs(item_windows, [], [], [])
        for _ in range(0, len(item_windows), size):
            batch = next(batches).cast_like(model)
            with torch.inference_mode(), full_float32(task.settings), autocast(task.settings, device):
                output = task.forward(model, batch)
            outputs.predictions.extend(_numbers(output.prediction))
            outputs.embeddings.extend(_numbers(output.embedding))
            if isinstance(output, FusionOutput):
                outputs.gates.extend(_numbers(output.gates))
        yield outputs


def _numbers(value: Tensor) -> ndarray:
    """Converts to numpy in float32 or wider; numpy has no bfloat16."""
    return (value.float() if value.dtype.itemsize < 4 else value).cpu().numpy()


def run(task: Task, model: nn.Module, item: Any, device: torch.device) -> Outputs:  # noqa: ANN401
    """Runs a model over one item's windows."""
    return next(run_all(task, model, [item], device))
