"""Models on disk: finished weights, and a training that can go on: all that its steps change, as one safetensors file.

Draws of dropout, noise and order are no part of it: they follow from seed, epoch, step and process (:func:`seed_of`).
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from affect.layers import fill

_NOTE = "affect"
ORDER, STEP = 1, 2
"""What numbers are drawn for, in :func:`seed_of`."""


def seed_of(purpose: int, *parts: int) -> int:
    """A seed that has nothing to do with its neighbours', 63 bits.

    Args:
        purpose: ``ORDER`` or ``STEP``.
        parts: the run's seed, and what it is counted by.
    """
    return int(np.random.SeedSequence([purpose, *parts]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def encode(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> bytes:
    """Tensors and a note of JSON values as safetensors."""
    from safetensors.torch import save

    return save({name: value.contiguous().cpu() for name, value in tensors.items()}, {_NOTE: json.dumps(note)})


def decode(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The reverse of :func:`encode`.

    Raises:
        ValueError: that is not what made it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return tensors, json.loads(header["__metadata__"][_NOTE])
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"no checkpoint ({error})") from error


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under longer names."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def part(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of :func:`named`, for what has the prefix."""
    return {n.removeprefix(f"{prefix}."): value for n, value in tensors.items() if n.startswith(f"{prefix}.")}


def changing(model: nn.Module) -> dict[str, Tensor]:
    """What training changes of a model: its state without frozen parameters."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The moments of every parameter, by its number."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, values in state.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], rates: list[float]) -> None:
    """Put moments and the groups' learning rates back."""
    whole = optimizer.state_dict()
    for key, value in tensors.items():
        number, name = key.split(".")
        whole["state"].setdefault(int(number), {})[name] = value
    for group, rate in zip(whole["param_groups"], rates, strict=True):
        group["lr"] = rate
    optimizer.load_state_dict(whole)


def save_weights(model: nn.Module) -> bytes:
    """A model's weights as safetensors."""
    from safetensors.torch import save

    return save({name: value.contiguous().cpu() for name, value in model.state_dict().items()})


def load_weights(model: nn.Module, content: bytes) -> nn.Module:
    """Read weights that :func:`save_weights` wrote into a model of the same shape, ready for inference.

    Raises:
        ValueError: they are of another model; names the first wrong tensor and both shapes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
    except SafetensorError as error:
        raise ValueError(f"no safetensors ({error})") from error
    fill(model, tensors)
    return model.eval()
