"""How fast work goes that was never measured here: from sizes of models and inputs, and a product of matrices.

A forward pass costs two operations per weight and point (token, patch, frame or state); models reach about half the
rate of a large product. Plans say of such a figure that it is estimated.
"""

import time
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import torch

from affect.corpus.video import Probe
from affect.modalities import KINDS, SYSTEMS
from affect.modality import millions
from affect.settings.extraction import Pool
from affect.settings.run import Run
from affect.storage import files
from affect.trained.models import Model

EFFICIENCY = 0.5
"""Share of a large product's rate that models reach: EfficientNet-B1 and WavLM-Large on a CPU."""
GPU_FLOPS = 2e14
"""Operations a second of a large product on a GPU, assumed: a plan holds none to measure it on."""
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


def extraction(kind: str, run: Run, probe: Probe) -> Estimate:
    """Work of extracting one kind of features.

    Args:
        kind: its name.
        run: the run.
        probe: of one of the videos, whose size and rate stand for all.

    Raises:
        WeightsError: local weights cannot be read.
    """
    work, (rate, words) = KINDS[kind].work(run, probe), _rate(KINDS[kind].stage(run))
    return Estimate(work.operations / rate + work.other_s, f"{work.words}, {words}" if work.operations else work.words)


def prediction(run: Run, models: Mapping[str, Model], fps: float) -> Estimate:
    """Work of trained models.

    Args:
        run: the run.
        models: by system.
        fps: frames per second of the videos.
    """
    rate, words = _rate(run.inference)
    counts = {
        system: sum(size for name, size, _ in files.walk(model.uri) if name == "model.safetensors") / 4
        for system, model in models.items()
    }
    operations = sum(2 * counts[system] * SYSTEMS[system].points_per_s(run, fps) for system in models)
    return Estimate(0.01 + operations / rate, f"{millions(sum(counts.values()))} weights, {words}")


def _rate(pool: Pool) -> tuple[float, str]:
    """Operations a second of an actor, and where that is from."""
    if pool.num_gpus:
        return GPU_FLOPS * min(1.0, pool.num_gpus) * EFFICIENCY, f"{GPU_FLOPS / 1e12:.0f} TFLOP/s of a GPU assumed"
    threads = max(1, int(pool.num_cpus))
    return product_flops() * threads * EFFICIENCY, f"{product_flops() / 1e9:.0f} GFLOP/s of a product on a core here"
