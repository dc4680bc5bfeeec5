"""Samples of an epoch: repeated, shuffled, cut into batches, and divided over processes."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch

from affect.learning.batches import Share, Task


def repeat_samples(task: Task, samples: list[Any], generator: torch.Generator) -> list[Any]:
    """Repeats each sample as often as :meth:`Task.repeats` says; a fraction is the probability of one more."""
    repeats = torch.tensor([task.repeats(item) for item, _ in samples])
    if (repeats == 1).all():
        return samples
    times = (repeats + torch.rand(len(samples), generator=generator)).floor().int().tolist()
    return [sample for sample, number in zip(samples, times, strict=True) for _ in range(number)]


def shuffled_batches(samples: list[Any], size: int, generator: torch.Generator) -> Iterator[list[Any]]:
    """Shuffles samples and yields batches of ``size``.

    A single sample left over joins the last batch: batch statistics need two.
    """
    shuffled = [samples[j] for j in torch.randperm(len(samples), generator=generator).tolist()]
    edges = [*range(0, max(1, len(samples) - 1), size), len(samples)]
    for start, end in itertools.pairwise(edges):
        yield shuffled[start:end]


def num_in_share(batch: list[Any], rank: int, processes: int) -> int:
    """Number of samples of a batch that a process computes and that count in the loss."""
    return len(batch[rank::processes])


def share_of(batch: list[Any], rank: int, processes: int) -> Share:
    """Returns the part of a batch that a process computes.

    All processes' shares have one size: shorter ones are padded with the batch's first samples, which do not count in
    the loss.
    """
    samples = batch[rank::processes]
    num_padding = -(-len(batch) // processes) - len(samples)
    return Share(samples + batch[:num_padding], max(end - start for _, (start, end) in batch))
