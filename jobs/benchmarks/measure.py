"""Rates, ratios and memory."""

import time
from collections.abc import Callable
from pathlib import Path

import torch


def rate(work: Callable[[], int], repeats: int = 3) -> float:
    """Things a second, the best of some repeats after a warm-up."""
    best = 0.0
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        done = work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if repeat:
            best = max(best, done / (time.perf_counter() - start))
    return best


def say_ratio(name: str, unit: str, ours: float, other: str, theirs: float) -> None:
    """Print both sides and their ratio."""
    print(f"{name}: {ours:.1f} {unit} a second, {other} {theirs:.1f}, ratio {ours / theirs:.2f}", flush=True)


def resident_mib(kind: str = "VmRSS") -> float:
    """Memory of this process in MiB: ``VmRSS`` all of it, ``RssAnon`` without files that are mapped and shared."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024
