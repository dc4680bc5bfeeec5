"""States of a tiny random Qwen3-VL on a device against a CPU."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from affect.settings.extraction import Behavior

from ..behavior import random_segments
from .book import Book
from .compare import difference_of_states

AHEAD = 2
"""Micro-batches that are prepared in a thread beside the model."""


def prepared_beside(model: Any, batches: Sequence[Any], prompts: Sequence[str]) -> Iterator[list[list[Any]]]:  # noqa: ANN401
    """States of micro-batches, each prepared in a thread while the model computes another, as in extraction.

    Args:
        model: a Qwen.
        batches: segments of each micro-batch.
        prompts: prompts of every segment.
    """
    from affect.corpus.prefetch import prefetch

    return (model.states(each) for each in prefetch((model.prepare_ahead(b, prompts) for b in batches), AHEAD))


def states(book: Book, device: torch.device, folder: Path) -> None:
    """States in the type as shipped and in float32, of several prompts, prepared ahead, and in halves.

    Args:
        book: takes the rows.
        device: device that is checked.
        folder: folder for the checkpoint.
    """
    from affect.behavior.prompt import PROMPTS
    from affect.behavior.qwen import Qwen
    from affect.console import tiny

    tiny.make_qwen(folder)
    prompts = list(PROMPTS.values())
    settings = Behavior(weights=str(folder), micro_batch=2)
    plain, ours = (Qwen(settings, prompts, kind) for kind in ("cpu", device.type))
    segments = random_segments([16, 16, 9], 64, 96)
    shipped = ours(segments, prompts[:1])
    if device.type == "cuda":
        _round_weights(plain)  # the GPU's have 16 bits
    book.note("tiny Qwen as shipped", difference_of_states(shipped, plain(segments, prompts[:1])), most=0.1)
    _widen(ours)
    one, three = ours(segments, prompts[:1]), ours(segments, prompts)
    apart = [[ours([segment], [prompt])[0][0] for prompt in prompts] for segment in segments]
    for name, found, expected in (
        ("segments of two lengths", one, plain(segments, prompts[:1])),
        ("three prompts at once", three, plain(segments, prompts)),
        ("three prompts at once / one by one", three, apart),
    ):
        book.note(f"tiny Qwen float32: {name}", difference_of_states(found, expected), most=1e-3)
    batches = [random_segments([16, 16], 64, 96, seed) for seed in range(12)]
    alone = [ours(batch, prompts[:1]) for batch in batches]
    beside = prepared_beside(ours, batches, prompts[:1])
    worst = max(difference_of_states(a, b) for a, b in zip(beside, alone, strict=True))
    book.note("tiny Qwen: prepared in a thread and stream beside the model", worst, most=0)
    _halves(book, settings, segments, device)


def _round_weights(model: Any) -> None:  # noqa: ANN401 -- a Qwen
    """Rounds weights to bfloat16."""
    for parameter in model._model.parameters():
        parameter.data = parameter.data.bfloat16().float()


def _widen(model: Any) -> Any:  # noqa: ANN401 -- a Qwen
    """Converts weights to float32; returns the model."""
    for parameter in model._model.parameters():
        parameter.data = parameter.data.float()
    return model


def _halves(book: Book, settings: Behavior, segments: Sequence[Any], device: torch.device) -> None:
    """States after a planted lack of memory for more than one segment."""
    from affect.behavior.prompt import PROMPTS
    from affect.behavior.qwen import Qwen

    prompts, real = list(PROMPTS.values()), Qwen._prefill

    def short(model: Qwen, micro_batch: Any) -> Any:  # noqa: ANN401 -- segments to states
        if len(micro_batch.segments) > 1:
            raise torch.OutOfMemoryError("planted")
        return real(model, micro_batch)

    whole = _widen(Qwen(settings, prompts, device.type))(segments, prompts)
    with mock.patch.object(Qwen, "_prefill", short):
        halves = _widen(Qwen(settings, prompts, device.type))(segments, prompts)
    worst = difference_of_states(halves, whole)
    book.note("tiny Qwen float32: in halves after a planted lack of memory", worst, most=1e-3)
    book.note("tiny Qwen: segments at once then", float(halves[0][0].micro_batch), most=1)
