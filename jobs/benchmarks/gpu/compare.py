"""Differences between results of two devices, and time on a device."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def difference(a: Any, b: Any) -> float:  # noqa: ANN401 -- tensors or arrays
    """Distance of a from b, relative to the length of b: ``|a - b| / |b|``."""
    x, y = (torch.as_tensor(value).detach().double().cpu() for value in (a, b))
    return float((x - y).norm() / y.norm().clamp(min=1e-30))


def difference_of_states(ours: Sequence[Sequence[Any]], theirs: Sequence[Sequence[Any]]) -> float:
    """Largest relative difference between the states of any segment and prompt.

    Args:
        ours: states per segment and prompt.
        theirs: states of the same segments and prompts.
    """
    pairs = [(a, b) for one, two in zip(ours, theirs, strict=True) for a, b in zip(one, two, strict=True)]
    return max(difference(x, y) for a, b in pairs for x, y in zip(a[:3], b[:3], strict=True))


def moved(value: Any, device: torch.device) -> Any:  # noqa: ANN401 -- inputs of a model
    """Inputs of a model on a device."""
    if isinstance(value, dict):
        return {name: moved(part, device) for name, part in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value


def median_s(work: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """Median time of some work in seconds, after a warm-up."""
    took = []
    for _ in range(repeats + 1):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        took.append(time.perf_counter() - start)
    return float(np.median(took[1:]))


def _wait(device: torch.device) -> None:
    """Waits for the work of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
