"""Speed of training: steps of the fusions, their data, and a corpus of the real size."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .measure import fastest, rate, rates, say_ratio, stepper

BATCH, FRAMES, WIDTH = 8, 400, 258
MODALITIES = ("face", "behavior", "audio")
NUM_TRAIN, TRAIN_FRAMES = 356, 1_682_057
NUM_DEVELOPMENT, DEVELOPMENT_FRAMES = 76, 383_814


def _device() -> torch.device:
    from affect.learning.fit import keep_freed_memory

    keep_freed_memory()
    return fastest()


def _dcmmoe_inputs(device: torch.device) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    features = {m: torch.randn(BATCH, FRAMES, WIDTH, generator=generator).to(device) for m in MODALITIES}
    valid = (torch.rand(BATCH, 3, FRAMES, generator=generator) < 0.9).to(device)
    return {
        "features": features,
        "valid": valid,
        "padding": torch.zeros(BATCH, FRAMES, dtype=torch.bool, device=device),
    }


def _raav_inputs(device: torch.device) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    frames = 120
    made: dict[str, Any] = {m: torch.randn(BATCH, frames, WIDTH, generator=generator) for m in ("face", "behavior")}
    made |= {"audio": torch.randn(BATCH, 4, WIDTH, generator=generator)}
    made |= {"visual_valid": torch.rand(BATCH, 2, frames, generator=generator) < 0.9}
    made |= {"audio_valid": torch.rand(BATCH, 4, generator=generator) < 0.6}
    made |= {"padding": torch.zeros(BATCH, frames, dtype=torch.bool)}
    return {name: value.to(device) for name, value in made.items()}


def _stepper(model: nn.Module, inputs: dict[str, Any], *, half: bool, compiled: bool) -> Callable[[], int]:
    """A training step of a fusion on random labels; returns 1."""
    from affect.settings.training import Loss

    run: Any = torch.compile(model) if compiled else model
    gold = torch.rand(*inputs["padding"].shape, 2, device=inputs["padding"].device) * 2 - 1
    return stepper(lambda: run(**inputs).prediction, model.parameters(), gold, Loss(), half=half)


def _looped(model: nn.Module) -> nn.Module:
    """Makes a DCMMOE compute its experts one after the other, as six separate stacks would."""
    from affect.fusion.dcmmoe import DCMMOE
    from affect.layers import sinusoids

    assert isinstance(model, DCMMOE)

    def run_experts(h: Tensor, evidence: Tensor) -> Tensor:
        positions, done = sinusoids(h.shape[2], like=h), []
        for e in range(len(model.query_of)):
            u, k = h[model.query_of[e]][None], int(model.key_of[e])
            for layer in model.layers:
                own = {name: p[e : e + 1] for name, p in layer.named_parameters()}
                u = torch.func.functional_call(layer, own, (u, h[k][None], positions, ~evidence[k][None]))
            done.append(u)
        return torch.cat(done)

    model.run_experts = run_experts  # type: ignore[method-assign]
    return model


def experts() -> None:
    """DCMMOE at the paper's size: experts in one batched computation against one after the other."""
    from affect.fusion.dcmmoe import DCMMOE
    from affect.settings.models import Dcmmoe

    device = _device()
    inputs = _dcmmoe_inputs(device)
    widths = dict.fromkeys(MODALITIES, WIDTH)
    made = [DCMMOE(Dcmmoe(), widths).to(device) for _ in range(2)]
    works = [_stepper(model, inputs, half=False, compiled=False) for model in (made[0], _looped(made[1]))]
    batched, looped = rates(works)
    say_ratio(f"experts on {device}", "steps", batched, "six stacks in a loop", looped)


def step() -> None:
    """Training steps of both fusions at the paper's size: float32, bfloat16 autocast, torch.compile, both."""
    from affect.fusion.dcmmoe import DCMMOE
    from affect.fusion.raav import RAAV
    from affect.settings.models import Dcmmoe, Raav

    device = _device()
    widths = dict.fromkeys(MODALITIES, WIDTH)
    builds: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
        "dcmmoe": (lambda: DCMMOE(Dcmmoe(), widths), _dcmmoe_inputs(device)),
        "raav": (lambda: RAAV(Raav(), widths), _raav_inputs(device)),
    }
    kinds = {"float32": (False, False), "bfloat16": (True, False), "compiled": (False, True), "both": (True, True)}
    for name, (build, inputs) in builds.items():
        works = [_stepper(build().to(device), inputs, half=half, compiled=made) for half, made in kinds.values()]
        plain, *others = rates(works)
        for kind, ours in zip(list(kinds)[1:], others, strict=True):
            say_ratio(f"step {name} on {device}, {kind}", "steps", ours, "float32", plain)


def loader(num_frames: int = 20_000) -> None:
    """Windows of one long track into padded batches.

    Args:
        num_frames: length of the track.
    """
    from affect.fusion.task import DcmmoeTask
    from affect.learning.batches import Share, collate
    from affect.settings.models import Dcmmoe
    from affect.tracks.synthetic import make_track

    track = make_track("track", num_frames, np.random.default_rng(0))
    task = DcmmoeTask(Dcmmoe(), dict.fromkeys(MODALITIES, WIDTH - 2))
    windows = task.windows(track)
    shares = [Share([(track, w) for w in windows[i : i + BATCH]], FRAMES) for i in range(0, len(windows), BATCH)]
    rows = list(_rows(track))

    def ours() -> int:
        for share in shares:
            collate([task.example(item, window) for item, window in share.samples], share.length)
        return len(windows)

    def per_frame() -> int:
        few = windows[: 2 * BATCH]
        for i in range(0, len(few), BATCH):
            batch = [rows[start:end] for start, end in few[i : i + BATCH]]
            for name in rows[0]:
                torch.stack([torch.stack([torch.as_tensor(row[name]) for row in window]) for window in batch])
        return len(few)

    batched, looped = rates([ours, per_frame])
    say_ratio("loader", "windows", batched, "a dictionary per frame", looped)


def _rows(track: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 -- a track
    """A dictionary per frame, as a loader of frames keeps them."""
    for frame in range(track.num_frames):
        row: dict[str, Any] = {"gold": track.gold[frame], "annotated": bool(track.annotated[frame])}
        for name, series in track.series.items():
            row[name] = np.concatenate([series.embedding[frame], series.prediction[frame]])
            row[f"{name}_valid"] = bool(series.valid[frame])
        yield row


def corpus() -> None:
    """Random features of a corpus of the real size: clips to tracks, then an epoch of windows and some steps."""
    from affect.pipeline.job import start_ray

    start_ray()
    with tempfile.TemporaryDirectory() as folder:
        from .scale import measure

        free = shutil.disk_usage(folder).free >> 30
        if free < 40:
            raise SystemExit(f"corpus needs 40 GiB of disk, {folder} has {free}")
        measure(folder, _step_seconds)


def _step_seconds() -> float:
    """Seconds of a DCMMOE training step at the paper's size."""
    from affect.fusion.dcmmoe import DCMMOE
    from affect.settings.models import Dcmmoe

    device = _device()
    model = DCMMOE(Dcmmoe(), dict.fromkeys(MODALITIES, WIDTH)).to(device)
    return 1 / rate(_stepper(model, _dcmmoe_inputs(device), half=device.type == "cuda", compiled=False), 2)
