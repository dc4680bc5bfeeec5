"""Measurement of rates, ratios and memory."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from affect.settings.training import Loss


def fastest() -> torch.device:
    """The GPU, or the CPU with two threads."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    torch.set_num_threads(2)
    return torch.device("cpu")


def rate(work: Callable[[], int], repeats: int = 3) -> float:
    """Units of work per second: the best of several repeats, after a warm-up.

    Args:
        work: does the work; returns the number of units.
        repeats: number of measurements.
    """
    return rates([work], repeats)[0]


def rates(works: Sequence[Callable[[], int]], repeats: int = 3) -> list[float]:
    """Rates of several works, measured by turns so that other load on the machine affects all of them."""
    best = [0.0] * len(works)
    for repeat in range(repeats + 1):
        for i, work in enumerate(works):
            start = time.perf_counter()
            done = work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat:
                best[i] = max(best[i], done / (time.perf_counter() - start))
    return best


def stepper(
    predict: Callable[[], Tensor], parameters: Iterable[nn.Parameter], gold: Tensor, loss: Loss, *, half: bool
) -> Callable[[], int]:
    """A training step with all points annotated: forward, CCC loss, backward, AdamW; returns 1.

    Args:
        predict: forward pass, predictions (..., 2).
        parameters: trained by the step.
        gold: (..., 2) in [-1, 1].
        loss: settings.
        half: whether the forward pass runs in bfloat16 autocast.
    """
    from affect.concordance import hybrid_loss

    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    annotated = torch.ones(gold.shape[:-1], dtype=torch.bool, device=gold.device)

    def once() -> int:
        with torch.autocast(gold.device.type, torch.bfloat16, enabled=half):
            prediction = predict()
        value = hybrid_loss(gold, prediction, annotated, loss)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        return 1

    return once


def say_ratio(name: str, unit: str, ours: float, other: str, theirs: float) -> None:
    """Prints two rates and their ratio."""
    print(f"{name}: {ours:.3g} {unit} a second, {other} {theirs:.3g}, ratio {ours / theirs:.2f}", flush=True)


def resident_mib(kind: str = "VmRSS") -> float:
    """Memory of this process in MiB, by its field in /proc: ``VmRSS`` all, ``RssAnon`` unmapped, ``VmHWM`` peak."""
    return _mib("/proc/self/status", kind)


def free_mib() -> float:
    """Free memory of this machine and its swap, in MiB."""
    return _mib("/proc/meminfo", "MemAvailable") + _mib("/proc/meminfo", "SwapFree")


def _mib(path: str, name: str) -> float:
    lines = Path(path).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
