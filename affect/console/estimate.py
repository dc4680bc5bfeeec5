"""Estimated speed of work that was never measured on this machine.

Computed from sizes of models and inputs, and the measured rate of a matrix product. A forward pass costs two operations
per weight and point (token, patch, frame or state); models reach about half the rate of a large product.
"""

import time
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import torch

from affect.corpus.probe import Probe
from affect.modalities import KINDS, SYSTEMS
from affect.modality import millions
from affect.settings.extraction import Pool
from affect.settings.run import Run
from affect.storage import files
from affect.trained.models import Model

EFFICIENCY = 0.5
"""Model speed relative to a large matrix product, measured for EfficientNet-B1 and WavLM-Large on a CPU."""
GPU_FLOPS = 2e14
"""Assumed operations per second of a large matrix product on a GPU, since a plan uses no GPU to measure it."""
_SIDE = 1024


class Estimate(NamedTuple):
    """Estimated work.

    Args:
        work_s: seconds of one actor per second of video.
        words: basis of the estimate, for messages.
    """

    work_s: float
    words: str


REPORT = Estimate(0.2, "of films of at most 640 x 360")
"""Estimate for films and pages."""


@cache
def product_flops() -> float:
    """Operations per second of a large float32 matrix product on one thread, best of three runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        matrix = torch.ones(_SIDE, _SIDE)
        matrix @ matrix
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            matrix @ matrix
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return 2 * _SIDE**3 / min(seconds)


def extraction(kind: str, run: Run, probe: Probe) -> Estimate:
    """Work of extracting one kind of features.

    Args:
        kind: name of the kind.
        run: the run.
        probe: probe of one video; its frame size and rate are used for all.

    Raises:
        WeightsError: local weights cannot be read.
    """
    work, (rate, words) = KINDS[kind].work(run, probe), _rate(KINDS[kind].stage(run))
    return Estimate(work.operations / rate + work.other_s, f"{work.words}, {words}" if work.operations else work.words)


def prediction(run: Run, models: Mapping[str, Model], fps: float) -> Estimate:
    """Work of predicting with trained models.

    Args:
        run: the run.
        models: models by system.
        fps: frames per second of the videos.
    """
    rate, words = _rate(run.inference)
    counts = {system: _num_weights(model.uri) if model.uri else 0.0 for system, model in models.items()}
    operations = sum(2 * counts[system] * SYSTEMS[system].points_per_s(run, fps) for system in models)
    return Estimate(0.01 + operations / rate, f"{millions(sum(counts.values()))} weights, {words}")


def _num_weights(uri: str) -> float:
    """Number of float32 weights in the folder of a model."""
    return sum(size for name, size, _ in files.walk(uri) if name == "model.safetensors") / 4


def _rate(pool: Pool) -> tuple[float, str]:
    """Operations per second of an actor, and the basis of that figure."""
    if pool.num_gpus:
        return GPU_FLOPS * min(1.0, pool.num_gpus) * EFFICIENCY, f"{GPU_FLOPS / 1e12:.0f} TFLOP/s of a GPU assumed"
    threads = max(1, int(pool.num_cpus))
    return product_flops() * threads * EFFICIENCY, f"{product_flops() / 1e9:.0f} GFLOP/s of a product on a core here"
