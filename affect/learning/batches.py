"""How models are fed: windows of items as padded batches, made ahead of the model without Python per frame."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor, nn

from affect.concordance import hybrid_loss
from affect.corpus.ahead import ahead
from affect.layers import FusionOutput, Output
from affect.settings.training import Fit

BATCHES_AHEAD = 4
"""Batches that wait for the model at most."""

Window = tuple[int, int]
Arrays = ndarray | tuple[ndarray, ...]


class Example(NamedTuple):
    """One window as it lies in memory; a batch pads it.

    Args:
        inputs: arrays by name whose first axis is the window's points; those of a tuple are laid side by side.
        gold: what the task's loss wants per point, valence and arousal first; NaN where a point has none.
        annotated: which points count.
        whole: arrays by name without an axis of points, of one shape in every window.
    """

    inputs: dict[str, Arrays]
    gold: Float[ndarray, "T targets"]
    annotated: Bool[ndarray, " T"]
    whole: dict[str, Arrays] = {}  # noqa: RUF012 -- a default that nobody writes to


class Share(NamedTuple):
    """What one process does of a batch.

    Args:
        samples: items with one window each.
        length: points of the batch's longest window.
    """

    samples: list[tuple[Any, Window]]
    length: int


class Batch(NamedTuple):
    """A share as tensors.

    Args:
        inputs: tensors by name.
        padding: true for points that only fill a window.
        gold: as in :class:`Example`.
        annotated: as in :class:`Example`.
    """

    inputs: dict[str, Tensor]
    padding: Bool[Tensor, "B T"]
    gold: Float[Tensor, "B T targets"]
    annotated: Bool[Tensor, "B T"]

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        inputs = {name: value.to(device, non_blocking=True) for name, value in self.inputs.items()}
        padding, gold, annotated = (value.to(device, non_blocking=True) for value in self[1:])
        return Batch(inputs, padding, gold, annotated)

    def like(self, model: nn.Module) -> "Batch":
        """The same with numbers as wide as the model's."""
        kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        inputs = {n: value.to(kind) if value.is_floating_point() else value for n, value in self.inputs.items()}
        return self._replace(inputs=inputs, gold=self.gold.to(kind))


class Outputs(NamedTuple):
    """Outputs of an item's windows, paddings included.

    Args:
        windows: the windows.
        predictions: one (T, 2) per window.
        embeddings: one (T, H) per window.
        gates: one (T, E) per window of a fusion; none of other models.
    """

    windows: list[Window]
    predictions: list[ndarray]
    embeddings: list[ndarray]
    gates: list[ndarray]


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
    def example(self, item: Any, window: Window) -> Example:  # noqa: ANN401
        """Cut a window's arrays out, without a copy where none is needed."""

    @abstractmethod
    def predict(self, item: Any, outputs: Outputs) -> Float[ndarray, "frames 2"]:  # noqa: ANN401
        """Join the windows' outputs to valence and arousal of every frame."""

    def census(self, items: Sequence[Any]) -> str:
        """Count what stands between items and learning from them, for the error where nothing is left."""
        windows = [(item, window) for item in items for window in self.windows(item)]
        annotated = sum(self.trains_on(*sample) for sample in windows)
        return f"{len(items)} items have {len(windows)} windows, {annotated} of them annotated"

    def copies(self, item: Any) -> float:  # noqa: ANN401
        """How often an item's windows are seen in an epoch, on average."""
        return 1.0

    def loss(
        self,
        gold: Float[Tensor, "B T targets"],
        prediction: Float[Tensor, "B T outputs"],
        annotated: Bool[Tensor, "B T"],
    ) -> Float[Tensor, ""]:
        """Loss of a whole batch: the hybrid CCC loss; any constant if nothing in it is annotated."""
        return hybrid_loss(gold, prediction, annotated, self.settings.loss)

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """AdamW's parameter groups: all parameters at one learning rate."""
        return [{"params": list(model.parameters()), "lr": self.settings.learning_rate}]

    def augment(self, inputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Inputs of a training batch with noise: none."""
        return inputs

    def forward(self, model: nn.Module, batch: Batch) -> Output | FusionOutput:
        """Run the model on a batch: inputs by the names of its arguments."""
        return model(**batch.inputs)


Loader = Callable[[Task, Sequence[Share], torch.device], Iterator[Batch]]
"""Makes the examples of shares and collates each share into a batch, in order."""


def load_here(task: Task, shares: Sequence[Share], device: torch.device) -> Iterator[Batch]:
    """Make batches in a thread of this process, some ahead of the model."""
    made = (_make(task, share, pinned=device.type == "cuda") for share in shares)
    for batch in ahead(made, BATCHES_AHEAD):
        yield batch.to(device)


def _make(task: Task, share: Share, *, pinned: bool) -> Batch:
    batch = collate([task.example(item, window) for item, window in share.samples], share.length)
    if not pinned:
        return batch
    inputs = {name: value.pin_memory() for name, value in batch.inputs.items()}
    return Batch(inputs, *(value.pin_memory() for value in batch[1:]))


def collate(examples: Sequence[Example], length: int) -> Batch:
    """Lay examples into padded tensors: every number is copied once, and becomes a float32 if it is a float.

    Args:
        examples: one or more.
        length: T, points of each window of the batch.
    """
    inputs = {n: _padded([e.inputs[n] for e in examples], length) for n in examples[0].inputs}
    whole = {n: _padded([e.whole[n] for e in examples]) for n in examples[0].whole}
    sizes = np.array([len(e.gold) for e in examples])
    padding = torch.from_numpy(np.arange(length) >= sizes[:, None])
    gold, annotated = (_padded(values, length) for values in zip(*(e[1:3] for e in examples), strict=True))
    return Batch(inputs | whole, padding, gold, annotated)


def _padded(values: Sequence[Arrays], length: int | None = None) -> Tensor:
    """Stack arrays, or tuples of arrays side by side, with zeros up to ``length`` along their first axis."""
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
    """What a model's arithmetic runs in; losses are always float32 or wider."""
    half = settings.precision in ("bfloat16", "float16") or (settings.precision == "auto" and device.type == "cuda")
    kind = torch.float16 if settings.precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, kind, enabled=half)


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
        outputs = Outputs(own, [], [], [])
        for _ in range(0, len(own), size):
            batch = next(batches).like(model)
            with torch.inference_mode(), autocast(task.settings, device):
                output = task.forward(model, batch)
            outputs.predictions.extend(_numbers(output.prediction))
            outputs.embeddings.extend(_numbers(output.embedding))
            if isinstance(output, FusionOutput):
                outputs.gates.extend(_numbers(output.gates))
        yield outputs


def _numbers(value: Tensor) -> ndarray:
    """As numpy has them, which knows no bfloat16, in float32 or wider."""
    return (value.float() if value.dtype.itemsize < 4 else value).cpu().numpy()


def run(task: Task, model: nn.Module, item: Any, device: torch.device) -> Outputs:  # noqa: ANN401
    """Run a model over one item's windows."""
    return next(run_all(task, model, [item], device))
