"""Training that has to learn: every model on synthetic people, whose affect each modality sees through noise."""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affect.settings import models as settings
from affect.settings.encoder import CropAugment, EncoderRun, GradaShape
from affect.settings.training import Fit, Loss

from ..training import MODALITIES
from .book import Book

STATE_WIDTH = 64
"""Width of the synthetic vision-language states."""
SEGMENT = 64_000
"""Samples of a segment."""
Made = tuple[Any, list[Any]]
"""A task and its tracks."""


def trainings(book: Book, device: torch.device, folder: Path, *, quick: bool) -> None:
    """Trains every model, compares the losses of single steps with a CPU's, resumes a training.

    Args:
        book: takes the rows.
        device: device that is checked.
        folder: folder for a tiny WavLM.
        quick: whether the models are tiny and the tracks short.
    """
    cuda = device.type == "cuda"
    torch.backends.cudnn.allow_tf32 = True  # torch's default
    made = tasks(folder, quick=quick, precision="auto" if cuda else "bfloat16")
    for name, make in made.items():
        book.check(f"{name} training", lambda name=name, make=make: learns(book, name, make, device), 5)  # type: ignore[misc]
    book.check("grada training", lambda: frames_learn(book, device, quick=quick), 5)
    torch.backends.cudnn.allow_tf32 = False
    still = tasks(folder, quick=True, dropout=0.0, precision="float32", max_epochs=1)
    for name in ("face", "mamba") if quick else ("face", "raav", "mamba"):
        book.check(f"{name} steps", lambda name=name: equal_steps(book, name, still[name], device), 5)  # type: ignore[misc]
    if cuda:
        half = tasks(folder, quick=quick, precision="float16", max_epochs=2)
        for name in ("dcmmoe", "raav", "mamba"):
            book.check(
                f"{name} float16",
                lambda name=name: learns(book, name, half[name], device, "float16"),  # type: ignore[misc]
                5,
            )
    book.check("resumed training", lambda: resumes(book, device, folder, quick=quick), 5)


def people(count: int, frames: int, *, states: bool = False, sound: bool = False) -> list[Any]:
    """Tracks of synthetic people.

    Args:
        count: number of tracks.
        frames: length of each.
        states: whether segments have vision-language states, a linear map of the gold values plus noise.
        sound: whether segments have waveforms, of a pitch that rises with arousal and a level that rises with valence.
    """
    from affect.audio.part import AudioPart
    from affect.behavior.part import BehaviorPart, Patches
    from affect.tracks.synthetic import make_track

    made = []
    for number in range(count):
        rng = np.random.default_rng(number)
        track = make_track(f"person{number}", frames, rng)
        gold, parts = np.nan_to_num(track.segment_gold), dict(track.parts)
        everywhere = np.ones(len(gold), dtype=bool)
        if states:
            mixing = np.random.default_rng(7).normal(size=(2, STATE_WIDTH))
            seen = (gold @ mixing + 0.1 * rng.normal(size=(len(gold), STATE_WIDTH))).astype(np.float32)
            parts["behavior"] = BehaviorPart(everywhere, seen, seen, Patches.none())
        if sound:
            time_s = np.arange(SEGMENT) / 16_000
            tones = [3000 * (1.2 + v) * np.sin(2 * np.pi * (220 + 160 * a) * time_s) for v, a in gold]
            waves = [(tone + 30 * rng.normal(size=SEGMENT)).astype(np.int16) for tone in tones]
            parts["audio"] = AudioPart(everywhere, everywhere, [""] * len(gold), waves)
        made.append(replace(track, parts=parts))
    return made


def tasks(
    folder: Path,
    *,
    quick: bool,
    dropout: float | None = None,
    **fit: Any,  # noqa: ANN401 -- settings
) -> dict[str, Callable[[], Made]]:
    """Makers of the tasks of every temporal model at its true size, but WavLM; with ``quick`` all are tiny.

    Args:
        folder: folder for a tiny WavLM.
        quick: whether all models are tiny.
        dropout: dropout probability; the models' own if None.
        fit: settings of the training that differ.
    """
    chosen = {"learning_rate": 1e-3, "max_epochs": 2 if quick else 4, "clip_norm": 1.0, **fit}
    own_fit = Fit(**chosen, loss=Loss(ccc_over="batch"))
    sizes: dict[str, Any] = {"fit": own_fit, **({"hidden": 32, "layers": 1} if quick else {})}
    sizes |= {} if dropout is None else {"dropout": dropout}
    windows: dict[str, Any] = {"window_frames": 100, "window_hop_frames": 100} if quick else {}
    frames, count = (900, 3) if quick else (3000, 8)
    heads: dict[str, Any] = {**sizes, **({"heads": 4} if quick else {})}
    head: dict[str, Any] = {} if dropout is None else {"head_dropout": dropout}
    mamba = settings.Mamba(**sizes, **head, window_segments=8, window_hop_segments=4)

    def face() -> Made:
        from affect.face.task import FaceTask

        return FaceTask(settings.FaceTransformer(**heads, **windows), 256), people(count, frames)

    def fusion(name: str) -> Made:
        from affect.fusion.task import DcmmoeTask, RaavTask

        widths = dict.fromkeys(MODALITIES, 256)
        if name == "raav":
            return RaavTask(settings.Raav(**heads), widths), people(count, frames)
        return DcmmoeTask(settings.Dcmmoe(**heads, **windows), widths), people(count, frames)

    def behavior() -> Made:
        from affect.behavior.task import BehaviorTask

        return BehaviorTask(mamba, STATE_WIDTH), people(count, frames, states=True)

    return {
        "face": face,
        "dcmmoe": lambda: fusion("dcmmoe"),
        "raav": lambda: fusion("raav"),
        "mamba": behavior,
        "wavlm": lambda: _wavlm(folder, own_fit, quick=quick),
    }


def _wavlm(folder: Path, fit: Fit, *, quick: bool) -> Made:
    """The audio's task with a tiny WavLM, augmentation and a moving average of the weights."""
    from affect.audio.task import AudioTask
    from affect.console import tiny

    tiny.make_wavlm(folder)
    chosen = settings.Wavlm(
        weights=str(folder),
        trained_layers=2,
        hidden=32,
        backbone_learning_rate=1e-3,
        augment=settings.Augment(gain=0.0, noise=0.3, band_limit=0.0, reverb=0.0),
        fit=replace(fit, ema_decay=0.9),
    )
    return AudioTask(chosen, SEGMENT), people(3, 900, sound=True) if quick else people(6, 1800, sound=True)


def fitted(
    task: Any,  # noqa: ANN401 -- a task
    items: Sequence[Any],
    device: torch.device,
    checkpoint_file: Any = None,  # noqa: ANN401 -- of a training
) -> tuple[Any, list[float]]:
    """Trains on three quarters of the tracks.

    Args:
        task: the task.
        items: tracks; the first quarter selects the epoch.
        device: device of the model.
        checkpoint_file: checkpoint to resume from and to write.

    Returns:
        The trained model, and the loss of each step.
    """
    from affect.learning.fit import fit

    losses: list[float] = []
    cut = max(1, len(items) // 4)
    done = fit(
        task,
        items[cut:],
        items[:cut],
        device=device,
        on_step=lambda step: losses.append(math.nan if step.loss is None else step.loss),
        checkpoint_file=checkpoint_file,
    )
    return done, losses


def learns(book: Book, name: str, make: Callable[[], Made], device: torch.device, label: str = "bfloat16") -> None:
    """Trains a model: finite losses that fall, few skipped steps; the development CCC is kept.

    Args:
        book: takes the rows.
        name: name of the model.
        make: makes its task and tracks.
        device: device of the model.
        label: precision, or another difference, for the rows' names.
    """
    task, items = make()
    start = time.perf_counter()
    done, losses = fitted(task, items, device)
    took, skipped = time.perf_counter() - start, sum(epoch.skipped for epoch in done.history)
    first, last = done.history[0], done.history[-1]
    title = f"{name} {label} training"
    book.note(f"{title}: steps without a finite loss", float(np.sum(~np.isfinite(losses))), most=0)
    book.note(f"{title}: loss of the last epoch / of the first", last.loss / first.loss, most=1.0)
    book.note(f"{title}: steps skipped", float(skipped), f"of {len(losses)}", most=max(1, len(losses) // 10))
    words = f"after {len(losses)} steps, {took:.1f} s"
    book.note(f"{title}: best development CCC", float(done.best.ccc[2]), words)


def equal_steps(book: Book, name: str, make: Callable[[], Made], device: torch.device) -> None:
    """Losses of a training without dropout, step by step, on a device and on the CPU."""
    task, items = make()
    plain, ours = (fitted(task, items, kind)[1] for kind in (torch.device("cpu"), device))
    worst = float(np.max(np.abs(np.subtract(ours, plain))))
    book.note(f"{name} float32 training: losses of {len(plain)} steps, worst difference", worst, most=5e-3)


def resumes(book: Book, device: torch.device, folder: Path, *, quick: bool) -> None:
    """A training of one epoch that goes on from its checkpoint to a second one."""
    from affect.learning.training import CheckpointFile

    short, whole = (tasks(folder, quick=quick, max_epochs=epochs, ema_decay=0.9)["face"]() for epochs in (1, 2))
    with tempfile.TemporaryDirectory() as place:
        file = CheckpointFile(f"{place}/checkpoint.safetensors", 1000)
        first, before = fitted(*short, device, file)
        second, after = fitted(*whole, device, file)
    book.note("resumed training: epochs", float(len(second.history)), least=2)
    book.note("resumed training: steps of the second epoch / of the first", len(after) / len(before), least=1, most=1)
    kept = abs(second.history[0].loss - first.history[0].loss)
    book.note("resumed training: change of the first epoch's loss", kept, most=1e-6)


def frames_learn(book: Book, device: torch.device, *, quick: bool) -> None:
    """Trains the frame encoder on crops whose light is the valence and whose colour is the arousal."""
    from affect.face.encoder_task import GradaTask
    from affect.learning.batches import autocast

    shape = GradaShape(width=0.25, depth=0.4, embedding=32, crop_px=96) if quick else GradaShape()
    changes = CropAugment(brightness=0.0, contrast=0.0, saturation=0.0, grey=0.0)
    task = GradaTask(EncoderRun(name="check", shape=shape, augment=changes))
    torch.manual_seed(0)
    model = task.build().to(device).train()
    optimizer = torch.optim.AdamW(task.parameter_groups(model), lr=1e-3)
    generator, losses = torch.Generator().manual_seed(0), []
    for step in range(4 if quick else 40):
        batch = _crops(8 if quick else 64, shape.crop_px, generator).to(device)
        batch = batch._replace(inputs=task.augment(batch.inputs, torch.Generator().manual_seed(step)))
        with autocast(task.settings, device):
            output = task.forward(model, batch)
        loss = task.loss(batch.gold, output.prediction, batch.annotated)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    third = max(1, len(losses) // 3)
    fallen = float(np.mean(losses[-third:]) / np.mean(losses[:third]))
    book.note("grada training: steps without a finite loss", float(np.sum(~np.isfinite(losses))), most=0)
    book.note("grada training: loss of the last third / of the first", fallen, most=1.2 if quick else 0.8)


def _crops(count: int, side: int, generator: torch.Generator) -> Any:  # noqa: ANN401 -- a batch
    """A batch of crops of one colour each, with noise."""
    from affect.learning.batches import Batch

    gold = torch.rand(count, 2, generator=generator) * 2 - 1
    valence, arousal = gold.unbind(1)
    light = torch.stack([128 + 60 * valence + tint * arousal for tint in (50, 0, -50)], dim=1)
    noise = 12 * torch.randn(count, side, side, 3, generator=generator)
    crops = (light[:, None, None] + noise).clamp(1, 255).byte()
    targets = torch.cat([gold, torch.full((count, 1), math.nan)], dim=1)[:, None]  # no expression
    annotated = torch.ones(count, 1, dtype=torch.bool)
    return Batch({"crops": crops}, ~annotated, targets, annotated)
