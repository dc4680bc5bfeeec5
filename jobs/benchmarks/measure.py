"""Rates, ratios and memory."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from affect.settings.training import Loss


def fastest() -> torch.device:
    """A GPU, or both cores of a small machine."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    torch.set_num_threads(2)
    return torch.device("cpu")


def rate(work: Callable[[], int], repeats: int = 3) -> float:
    """Things a second, the best of some repeats after a warm-up."""
    return rates([work], repeats)[0]


def rates(works: Sequence[Callable[[], int]], repeats: int = 3) -> list[float]:
    """The same of several, by turns: what else the machine does meets all of them."""
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
    """One training step, all points annotated: forward, CCC loss, backward, AdamW; counts one."""
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
    """Print both sides and their ratio."""
    print(f"{name}: {ours:.3g} {unit} a second, {other} {theirs:.3g}, ratio {ours / theirs:.2f}", flush=True)


def resident_mib(kind: str = "VmRSS") -> float:
    """Memory of this process in MiB: ``VmRSS`` all of it, ``RssAnon`` without files that are mapped and shared."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024
