"""Speed of training and of the encoders, and torch.compile in training."""

import contextlib
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from .. import audio, behavior, extraction, training
from .book import Book
from .compare import median_s
from .models import SMALL_GRADA, WIDTHS
from .training import learns, tasks


def speed(book: Book, device: torch.device, *, quick: bool) -> None:
    """Rows of the benchmarks of single models, and a training step of both fusions by default."""
    parts: dict[str, tuple[Callable[[], object], float]] = {
        "encoder": (extraction.encoder, 5),
        "experts": (training.experts, 5),
        "wavlm": (audio.wavlm, 10),
        "finetune": (audio.finetune, 10),
        "scan": (behavior.scan, 10),
    }
    with _small() if quick else contextlib.nullcontext():
        for name, (part, needs_s) in parts.items():
            book.check(name, partial(book.lines, name, part), needs_s)
        book.check("steps", lambda: steps(book, device, quick=quick), 5)
    book.check("loader", lambda: book.lines("loader", partial(training.loader, 2_000 if quick else 20_000)), 5)


@contextlib.contextmanager
def _small() -> Any:  # noqa: ANN401 -- a context
    """Gives the benchmarks tiny models."""
    with contextlib.ExitStack() as held:
        for owner, name, value in (
            (training, "BATCH", 1),
            (training, "FRAMES", 30),
            (audio, "BATCH", 2),
            (audio, "_large", _tiny_wavlm),
            (extraction, "true_size_encoder", _tiny_encoder),
        ):
            held.enter_context(mock.patch.object(owner, name, value))
        yield


def _tiny_wavlm(**chosen: Any) -> nn.Module:  # noqa: ANN401 -- settings
    """A tiny WavLM in place of WavLM-Large."""
    from affect.audio.wavlm import WavlmRegressor, load_backbone
    from affect.console import tiny
    from affect.settings.models import Wavlm

    with tempfile.TemporaryDirectory() as folder:
        tiny.make_wavlm(Path(folder))
        return WavlmRegressor(Wavlm(trained_layers=1, **chosen), load_backbone(folder, "main"))


def _tiny_encoder(folder: Path) -> Path:
    """Saves a tiny frame encoder for crops of the true size."""
    from dataclasses import replace

    from affect.face import grada

    grada.save(grada.Grada(replace(SMALL_GRADA, crop_px=240)).eval(), folder)
    return folder


def steps(book: Book, device: torch.device, *, quick: bool) -> None:
    """Training steps of both fusions in the precision of a default training, and the memory at most."""
    from affect.fusion.dcmmoe import DCMMOE
    from affect.fusion.raav import RAAV
    from affect.settings.models import Dcmmoe, Raav

    for name, model, inputs in (
        ("dcmmoe", DCMMOE(Dcmmoe(), WIDTHS), training._dcmmoe_inputs(device)),
        ("raav", RAAV(Raav(), WIDTHS), training._raav_inputs(device)),
    ):
        step = training._stepper(model.to(device), inputs, half=device.type == "cuda", compiled=False)
        book.note(f"a step of {name}", 1000 * median_s(step, device, 1 if quick else 10), "ms")
    if device.type == "cuda":
        book.note("memory at most", torch.cuda.max_memory_allocated() / 2**30, "GiB")


def compiled(book: Book, device: torch.device, *, quick: bool) -> None:
    """Trains the temporal models with torch.compile, and compares its steps with eager ones."""
    folder = Path(tempfile.mkdtemp())
    # batches of one size with --quick: each other one is compiled anew on a CPU
    made = tasks(folder, quick=quick, max_epochs=2, compile=True, batch_size=6 if quick else 8)
    for name in ("face",) if quick else ("face", "dcmmoe", "raav", "mamba"):
        book.check(f"{name} compiled", lambda name=name: learns(book, name, made[name], device, "compiled"), 20)  # type: ignore[misc]
    if not quick:
        book.check("step", partial(book.lines, "step", training.step), 60)
