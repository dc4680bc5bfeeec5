"""One fit loop for every model: plain torch, one device per process, any number of processes (torch.distributed).

With W processes every batch is divided over them, and the loss is that of the whole batch. Results do not depend on W,
except for dropout and noise draws. BatchNorm also sees the samples that pad uneven shares. Scores are computed from
merged moments: every frame counts once.

A killed training resumes from its last checkpoint and ends with the same weights, bit by bit on a CPU.

Source: paper (arXiv 2603.13056), section 3.5; spec section 8.
"""

import ctypes
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from affect.concordance import Moments, merge
from affect.learning.batches import Loader, Task, load_here, run_all
from affect.learning.distributed import gather_lists, world
from affect.learning.training import CheckpointFile, Epoch, Step, Training
from affect.storage import files

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # parameters of glibc's mallopt


def keep_freed_memory() -> None:
    """Makes glibc reuse freed memory of large tensors instead of returning it to the system.

    At the paper's size a DCMMOE step on a CPU takes 10 s instead of 18 s. Does nothing if the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)  # never


SELECTED = "development (selected on it)"
"""Origin of a score that selected the epoch."""


class Fitted(NamedTuple):
    """A trained model.

    Args:
        model: model in eval mode with the weights of the best epoch (of their moving average if there is one).
        history: all epochs.
        best: epoch with the highest mean CCC on the development items.
        scored_on: origin of its score, for messages.
    """

    model: nn.Module
    history: list[Epoch]
    best: Epoch
    scored_on: str = SELECTED


def fit(
    task: Task,
    training: Sequence[Any],
    development: Sequence[Any],
    *,
    device: torch.device,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    on_step: Callable[[Step], None] = lambda _: None,
    loader: Loader = load_here,
    checkpoint_file: CheckpointFile | None = None,
) -> Fitted:
    """Trains until the development score has not risen for ``stop_patience`` epochs.

    Args:
        task: builds the model, its inputs and its loss.
        training: items to train on.
        development: items that select the best epoch.
        device: device of the model.
        on_epoch: called after every new epoch, in every process.
        on_step: called after every step, in every process.
        loader: makes the batches.
        checkpoint_file: checkpoint to resume from, if it exists, and to write; None for no checkpoints.

    Raises:
        ValueError: there is no annotated training window or development frame, development labels are constant, or the
            checkpoint is another model's.
        FloatingPointError: the loss was not finite in three steps in a row, or gradients are finite at no scale; names
            the items.
    """
    run = epochs(
        task, training, development, device=device, on_step=on_step, loader=loader, checkpoint_file=checkpoint_file
    )
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
    checkpoint_file: CheckpointFile | None = None,
) -> Generator[tuple[Epoch, bool], None, Fitted]:
    """Trains as :func:`fit` does, as a generator of epochs, so that several trainings can be interleaved.

    Args:
        task: builds the model, its inputs and its loss.
        training: items to train on.
        development: items that select the best epoch.
        device: device of the model.
        on_step: called after every step, in every process.
        loader: makes the batches.
        checkpoint_file: checkpoint to resume from and to write, as in :func:`fit`.

    Yields:
        Each epoch, and true if it was trained now, false if it was restored from the checkpoint.

    Returns:
        The trained model.
    """
    samples = [(item, w) for item in training for w in task.windows(item) if task.trains_on(item, w)]
    _check(task, samples, training, development)
    state = Training(task, device)
    if checkpoint_file and files.exists(checkpoint_file.uri):
        try:
            state.restore(files.read(checkpoint_file.uri))
        except (ValueError, RuntimeError, KeyError) as error:
            raise ValueError(
                f"{checkpoint_file.uri} cannot be resumed from, delete it to start anew: {error}"
            ) from error
    yield from ((epoch, False) for epoch in state.history)
    while not state.finished:
        state.epoch(samples, loader, on_step, checkpoint_file)
        state.close_epoch(evaluate(task, state.evaluated, development, device, loader))
        state.save(checkpoint_file)
        yield state.history[-1], True
    state.model.load_state_dict(state.best_weights, strict=False)  # frozen parameters are not part of them
    return Fitted(state.model.eval(), state.history, state.best)


def _check(task: Task, samples: Sequence[Any], training: Sequence[Any], development: Sequence[Any]) -> None:
    """Checks that there are training windows and development labels.

    Raises:
        ValueError: there are none; the message counts what was found.
    """
    if not samples:
        raise ValueError(f"nothing to learn from: {task.describe_samples(training)}")
    if not any(task.windows(item) for item in development):
        raise ValueError(f"nothing to select on: {task.describe_samples(development)}")
    golds = [item.gold[np.isfinite(item.gold[:, :2]).all(axis=1)][:, :2] for item in development]
    if not any(len(gold) for gold in golds):
        raise ValueError(f"nothing to select on: none of {len(development)} development items is annotated")
    spread = np.ptp(np.concatenate(golds), axis=0)
    for name, width in zip(("valence", "arousal"), spread, strict=True):
        if width == 0:
            raise ValueError(
                f"{name} is constant in the development tracks: its CCC is undefined, nothing to select on"
            )


def evaluate(
    task: Task, model: nn.Module, items: Sequence[Any], device: torch.device, loader: Loader = load_here
) -> Float[ndarray, " 3"]:
    """Computes the frame-wise CCC of valence, arousal and their mean over all items, divided over the processes."""
    rank, processes = world()
    items = items[rank::processes]
    outputs = run_all(task, model, items, device, loader)
    return score([Moments.of(i.gold, task.predict(i, out)) for i, out in zip(items, outputs, strict=True)])


def score(parts: Sequence[Moments]) -> Float[ndarray, " 3"]:
    """CCC of valence, arousal and their mean over the moments of all processes; 0 where it is undefined."""
    ccc = merge(gather_lists(list(parts))).ccc()
    ccc = np.nan_to_num(ccc, nan=0.0)
    return np.append(ccc, ccc.mean())
