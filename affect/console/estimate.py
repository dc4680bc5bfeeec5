"""How fast work goes that was never measured here: from sizes of models and inputs, and a product of matrices.

A forward pass costs two operations per weight and point (token, patch, frame or state); models reach about half the
rate of a large product. Plans say of such a figure that it is estimated.
"""

import json
import math
import time
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from affect import weights
from affect.behavior.checkpoint import PATCH_PX, frame_size
from affect.corpus.video import Probe
from affect.face.grada import Grada
from affect.settings.encoder import GradaShape
from affect.settings.extraction import Pool
from affect.settings.names import Kind, System
from affect.settings.run import Run
from affect.storage import files
from affect.trained.models import Model

EFFICIENCY = 0.5
"""Share of a large product's rate that models reach: EfficientNet-B1 and WavLM-Large on a CPU."""
GPU_FLOPS = 2e14
"""Operations a second of a large product on a GPU, assumed: a plan holds none to measure it on."""
QWEN_WEIGHTS = (3.6e9, 0.41e9)
"""Weights of Qwen3-VL-4B's decoder and vision tower, of which a hub id is taken to be."""
FACE_S, PICTURE_S, TOKEN_S = 0.02, 0.004, 0.02
"""Seconds of detecting and meshing a frame, of decoding and preparing a picture, and at least of writing a token."""
WRITTEN_TOKENS = 60
"""Tokens of a description."""
WAVLM_HZ = 50.0
"""States of WavLM per second."""
_SIDE = 1024


class Estimate(NamedTuple):
    """Work that was not measured.

    Args:
        work_s: seconds of an actor per second of video.
        words: what it was estimated from.
    """

    work_s: float
    words: str


REPORT = Estimate(0.2, "of films of at most 640 x 360")
"""Of making films and pages."""


@cache
def product_flops() -> float:
    """Operations a second of a large float32 product on one thread of this machine, the best of three."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        matrix = torch.ones(_SIDE, _SIDE)
        matrix @ matrix
        took = []
        for _ in range(3):
            start = time.perf_counter()
            matrix @ matrix
            took.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return 2 * _SIDE**3 / min(took)


def extraction(kind: Kind, run: Run, probe: Probe) -> Estimate:
    """Work of extracting one kind.

    Args:
        kind: which.
        run: the run.
        probe: of one of the videos, whose size and rate stand for all.

    Raises:
        WeightsError: local weights that cannot be read.
    """
    pool: Pool = getattr(run, kind)
    rate, words = _rate(pool)
    if kind == "audio":
        return Estimate(0.01, "decoding alone")
    if kind == "face":
        fps, operations = probe.clock.fps, _grada_operations(run.face.weights)
        said = f"{fps:.3g} frames a second of {_millions(operations)} operations, {words}"
        return Estimate(fps * (FACE_S + operations / rate), said)
    decoder, tower = _qwen_weights(run.behavior.weights)
    width, height = frame_size(probe.width, probe.height, run.behavior)
    frames = min(run.behavior.max_frames, run.grid.segment_s * run.behavior.frames_per_second)
    tokens = frames / 2 * (width // PATCH_PX) * (height // PATCH_PX)
    written = WRITTEN_TOKENS if kind == "description" else 0
    operations = 2 * (decoder * (tokens + written) + tower * 4 * tokens)
    said = f"{_millions(decoder + tower)} weights, {tokens:,.0f} tokens a segment, {words}"
    return Estimate((operations / rate + frames * PICTURE_S + written * TOKEN_S) / run.grid.hop_s, said)


def prediction(run: Run, models: Mapping[System, Model], fps: float) -> Estimate:
    """Work of trained models.

    Args:
        run: the run.
        models: by system.
        fps: frames per second of the videos.
    """
    face, dcmmoe, grid = run.face_transformer, run.dcmmoe, run.grid
    points: dict[System, float] = {
        "face": fps * face.window_frames / face.window_hop_frames,
        "behavior": 2.0,
        "audio": WAVLM_HZ * grid.segment_s / grid.hop_s,
        "dcmmoe": fps * dcmmoe.window_frames / dcmmoe.window_hop_frames,
        "raav": fps * grid.segment_s / grid.hop_s,
    }
    rate, words = _rate(run.inference)
    counts = {
        system: sum(size for name, size, _ in files.walk(model.uri) if name == "model.safetensors") / 4
        for system, model in models.items()
    }
    operations = sum(2 * counts[system] * points[system] for system in models)
    said = f"{_millions(sum(counts.values()))} weights, {words}"
    return Estimate(0.01 + operations / rate, said)


def _millions(number: float) -> str:
    return f"{float(f'{number / 1e6:.2g}'):,g} million"


def _rate(pool: Pool) -> tuple[float, str]:
    """Operations a second of an actor, and where that is from."""
    if pool.num_gpus:
        return GPU_FLOPS * min(1.0, pool.num_gpus) * EFFICIENCY, f"{GPU_FLOPS / 1e12:.0f} TFLOP/s of a GPU assumed"
    threads = max(1, int(pool.num_cpus))
    return product_flops() * threads * EFFICIENCY, f"{product_flops() / 1e9:.0f} GFLOP/s of a product on a core here"


@cache
def _grada_operations(folder: str) -> float:
    """Operations of encoding one crop; of the paper's encoder if there is no other, none without an encoder."""
    from torch.utils.flop_counter import FlopCounterMode

    if not folder:
        return 0.0
    path = weights.here(folder) / "config.json"
    try:
        shape = GradaShape(**json.loads(path.read_text())) if path.exists() else GradaShape()
    except (ValueError, TypeError) as error:
        raise weights.cannot_load(folder, error) from error
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        Grada(shape).eval()(torch.empty(1, 3, shape.crop_px, shape.crop_px))
    return float(counter.get_total_flops())


def _qwen_weights(name: str) -> tuple[float, float]:
    """Weights of a checkpoint's decoder and vision tower."""
    if not weights.is_path(name):
        return QWEN_WEIGHTS
    sizes = _sizes(sorted(weights.folder(name).glob("*.safetensors")))
    tower = sum(size for tensor, size in sizes if "visual" in tensor)
    decoder = sum(size for tensor, size in sizes if "visual" not in tensor and "embed" not in tensor)
    return float(decoder), float(tower)


def _sizes(paths: Iterable[Path]) -> list[tuple[str, int]]:
    """Names and numbers of weights of tensors, from the files' headers."""
    found = []
    for path in paths:
        try:
            with safe_open(path, "pt") as tensors:
                found += [(name, math.prod(tensors.get_slice(name).get_shape())) for name in tensors.keys()]
        except (OSError, SafetensorError) as error:
            raise weights.cannot_load(str(path), error) from error
    return found
