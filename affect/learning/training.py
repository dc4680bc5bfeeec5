"""State of a training and its steps: model, optimiser, scheduler, moving average, and the epoch in progress.

With W processes every batch is divided over them. Predictions are gathered with their gradient, so that the loss is
that of the whole batch, as is batch normalisation.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from affect.learning import checkpoint
from affect.learning.batches import Batch, Loader, Task, autocast, full_float32
from affect.learning.distributed import gather, gather_with_gradient, synchronise_batch_norm, world
from affect.learning.sampling import num_in_share, repeat_samples, share_of, shuffled_batches
from affect.settings.training import Fit
from affect.storage import files

MAX_NAN_STEPS = 3
"""Consecutive steps without a finite loss that stop a training."""
MIN_LEARNING_RATE = 1e-7
"""Lowest learning rate of the plateau scheduler."""


class Epoch(NamedTuple):
    """One pass over the training windows.

    Args:
        number: 1-based number.
        loss: mean loss over the steps.
        ccc: CCC of valence, arousal and their mean on the development items, (3,).
        learning_rate: learning rate of the first parameter group.
        seconds: duration; of a resumed epoch, since the restart.
        skipped: steps skipped because the loss was not finite or a gradient exceeded float16.
    """

    number: int
    loss: float
    ccc: ndarray
    learning_rate: float
    seconds: float
    skipped: int


class Step(NamedTuple):
    """One training step.

    Args:
        epoch: 1-based number of the epoch.
        number: 1-based number within the epoch.
        steps: steps of the epoch.
        loss: loss of the whole batch; None if no point of it is annotated.
    """

    epoch: int
    number: int
    steps: int
    loss: float | None


class CheckpointFile(NamedTuple):
    """File of a training's checkpoint, and how often it is written.

    Args:
        uri: path or URI.
        every: steps between two writes within an epoch; it is also written after every epoch.
    """

    uri: str
    every: int


class HostCopy:
    """Asynchronous copy of numbers from a device to the host."""

    def __init__(self, values: Tensor) -> None:
        """Queues the copy."""
        self._values = values.to("cpu", non_blocking=True)
        self._copied = torch.cuda.Event() if values.is_cuda else None
        if self._copied:
            self._copied.record()

    def read(self) -> list[float]:
        """Waits for the copy, but not for work that was queued after it."""
        if self._copied:
            self._copied.synchronize()
        numbers: list[float] = self._values.tolist()
        return numbers


class Training:
    """A model, its optimiser and their progress: everything that a checkpoint holds.

    Args:
        task: builds the model and its loss.
        device: device of the model.
    """

    def __init__(self, task: Task, device: torch.device) -> None:
        """Initialises the weights from ``settings.seed``, the same in every process."""
        settings = task.settings
        torch.manual_seed(settings.seed)
        self.task, self.device, self.settings = task, device, settings
        self.rank, self.processes = world()
        model = task.build().to(device)
        if settings.precision == "float64":
            model = model.double()
        self.model: nn.Module = synchronise_batch_norm(model, device) if self.processes > 1 else model
        self.average = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay), use_buffers=True)
            if settings.ema_decay
            else None
        )
        groups = task.parameter_groups(self.model)
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.scheduler = _scheduler(self.optimizer, settings)
        # Disabled unless the precision is float16.
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
        self.best = Epoch(0, np.nan, np.full(3, -np.inf), 0.0, 0.0, 0)
        self.best_weights = copy.deepcopy(checkpoint.trainable_state(self.model))
        self.history: list[Epoch] = []
        self.losses: list[float] = []  # of the epoch in progress
        self.steps = 0  # of the epoch in progress
        self.skipped = 0  # of the epoch in progress
        self.in_a_row = 0  # consecutive losses that were not finite
        self.trained: nn.Module | None = None
        self.started = time.monotonic()

    @property
    def evaluated(self) -> nn.Module:
        """Model that is evaluated and saved: the moving average if there is one."""
        return self.average.module if self.average else self.model

    @property
    def finished(self) -> bool:
        """True after ``max_epochs`` epochs, or ``stop_patience`` epochs without a better score."""
        last = len(self.history)
        return last >= self.settings.max_epochs or (last > 0 and last - self.best.number >= self.settings.stop_patience)

    def epoch(
        self,
        samples: Sequence[Any],
        loader: Loader,
        on_step: Callable[[Step], None],
        checkpoint_file: CheckpointFile | None,
    ) -> None:
        """Trains to the end of the epoch, from its first step or from the restored one.

        Args:
            samples: pairs of an item and a window.
            loader: makes the batches.
            on_step: called after every step.
            checkpoint_file: file to save to within the epoch; None for no checkpoints.

        Raises:
            FloatingPointError: the loss was not finite in three steps in a row.
            ValueError: no batch has an annotated point.
        """
        self.started = time.monotonic()
        trained = self._prepared()
        trained.train()
        number = len(self.history) + 1
        order = torch.Generator().manual_seed(checkpoint.seed_of(checkpoint.ORDER, self.settings.seed, number))
        repeated = repeat_samples(self.task, list(samples), order)
        batches = list(shuffled_batches(repeated, self.settings.batch_size, order)) if repeated else []
        remaining = batches[self.steps :]
        shares = [share_of(batch, self.rank, self.processes) for batch in remaining]
        for batch, share in zip(remaining, loader(self.task, shares, self.device), strict=True):
            num_counted = num_in_share(batch, self.rank, self.processes)
            with full_float32(self.settings):
                loss = self._step(*self._loss(trained, share, num_counted, number), batch)
            self.steps += 1
            on_step(Step(number, self.steps, len(batches), loss))
            if checkpoint_file and self.steps % checkpoint_file.every == 0 and self.steps < len(batches):
                self.save(checkpoint_file)
        if not self.losses and not self.skipped:
            raise ValueError("not one batch holds anything that is annotated and can be used: nothing to fit")

    def _prepared(self) -> nn.Module:
        """Wraps the model for DistributedDataParallel and torch.compile, as the settings say."""
        if self.trained is None:
            trained: nn.Module = DistributedDataParallel(self.model) if self.processes > 1 else self.model
            self.trained = torch.compile(trained) if self.settings.compile else trained  # type: ignore[assignment]
        assert self.trained is not None
        return self.trained

    def _loss(self, trained: nn.Module, share: Batch, num_counted: int, epoch: int) -> tuple[Tensor, Tensor]:
        """Returns the loss of the whole batch and its number of annotated points.

        This process computes the predictions of its share, of which the first ``num_counted`` samples count.
        """
        seed = checkpoint.seed_of(checkpoint.STEP, self.settings.seed, epoch, self.steps, self.rank)
        torch.manual_seed(seed)  # dropout; one seed per process
        np.random.seed(seed % 2**32)  # transformers' SpecAugment draws from numpy
        share.annotated[num_counted:] = False  # samples that pad the share
        share = share.cast_like(self.model)
        share = share._replace(inputs=self.task.augment(share.inputs, torch.Generator().manual_seed(seed)))
        with autocast(self.settings, self.device):
            prediction = self.task.forward(trained, share).prediction
        prediction = gather_with_gradient(prediction)
        annotated = gather(share.annotated)
        return self.task.loss(gather(share.gold), prediction, annotated), annotated.sum()

    def _step(self, loss: Tensor, count: Tensor, batch: Sequence[Any]) -> float | None:
        """Updates the weights; returns the loss, None if no point of the batch is annotated.

        The loss is read after the backward pass has been queued, so that a GPU does not wait for the host.
        """
        copied = HostCopy(torch.stack([loss.detach().double(), count.double()]))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        value, num_points = copied.read()
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
        if self.scaler.get_scale() < scale:  # a gradient exceeded float16: step skipped, scale halved
            self.skipped += 1
            if self.scaler.get_scale() < 1:
                raise FloatingPointError(f"gradients are finite at no scale, last on {_names(batch)}")
            return value
        if self.average:
            self.average.update_parameters(self.model)
        self.losses.append(value)
        return value

    def close_epoch(self, ccc: Float[ndarray, " 3"]) -> None:
        """Records an evaluated epoch; keeps its weights if its mean CCC is the best so far.

        Args:
            ccc: CCC of valence, arousal and their mean.
        """
        rate = float(self.optimizer.param_groups[0]["lr"])
        loss = float(np.mean(self.losses)) if self.losses else np.nan
        seconds = time.monotonic() - self.started
        self.history.append(Epoch(len(self.history) + 1, loss, ccc, rate, seconds, self.skipped))
        self.losses, self.steps, self.skipped = [], 0, 0
        if self.scheduler:
            self.scheduler.step(float(ccc[2]))
        if ccc[2] > self.best.ccc[2]:
            self.best, self.best_weights = self.history[-1], copy.deepcopy(checkpoint.trainable_state(self.evaluated))

    def save(self, checkpoint_file: CheckpointFile | None) -> None:
        """Writes a checkpoint from rank 0."""
        if checkpoint_file is None or self.rank:
            return
        tensors = checkpoint.with_prefix("model", checkpoint.trainable_state(self.model))
        tensors |= checkpoint.with_prefix("best", self.best_weights)
        tensors |= checkpoint.with_prefix("optimizer", checkpoint.optimizer_tensors(self.optimizer))
        if self.average:
            tensors |= checkpoint.with_prefix("average", checkpoint.trainable_state(self.average))
        note = {
            "history": [epoch._asdict() | {"ccc": epoch.ccc.tolist()} for epoch in self.history],
            "best": self.best.number,
            "rates": [group["lr"] for group in self.optimizer.param_groups],
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "scaler": self.scaler.state_dict(),
            **{name: getattr(self, name) for name in ("losses", "steps", "skipped", "in_a_row")},
        }
        files.write(checkpoint_file.uri, checkpoint.encode(tensors, note))

    def restore(self, content: bytes) -> None:
        """Restores what :meth:`save` wrote.

        Raises:
            ValueError: the content is no checkpoint, or one of another model.
        """
        tensors, note = checkpoint.decode(content)
        if missing := sorted(
            checkpoint.with_prefix("model", checkpoint.trainable_state(self.model)).keys() - tensors.keys()
        ):
            raise ValueError(f"tensor {missing[0]} is missing")
        self.model.load_state_dict(checkpoint.without_prefix("model", tensors), strict=False)
        self.best_weights = {n: v.to(self.device) for n, v in checkpoint.without_prefix("best", tensors).items()}
        checkpoint.restore_optimizer(self.optimizer, checkpoint.without_prefix("optimizer", tensors), note["rates"])
        if self.average:
            self.average.load_state_dict(checkpoint.without_prefix("average", tensors), strict=False)
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
    """Builds ReduceLROnPlateau for groups at the main learning rate; groups with another rate keep it."""
    if settings.plateau_factor is None:
        return None
    floors = [MIN_LEARNING_RATE if g["lr"] == settings.learning_rate else g["lr"] for g in optimizer.param_groups]
    patience, threshold = settings.plateau_patience, settings.plateau_threshold
    return ReduceLROnPlateau(optimizer, "max", settings.plateau_factor, patience, threshold, min_lr=floors)
