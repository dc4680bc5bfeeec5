"""Weights and training checkpoints as safetensors.

A checkpoint holds everything that training steps change. Random states are not stored: every draw is seeded from the
run's seed, epoch, step and process (:func:`seed_of`).
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from affect.layers import load_state

_NOTE = "affect"
ORDER, STEP = 1, 2
"""Purposes of :func:`seed_of`: order of an epoch's samples; dropout and augmentation of a step."""


def seed_of(purpose: int, *parts: int) -> int:
    """Derives an independent 63-bit seed for each purpose and tuple of numbers.

    Args:
        purpose: ``ORDER`` or ``STEP``.
        parts: the run's seed, then counters such as epoch, step and process.

    Source: numpy's ``SeedSequence``.
    """
    return int(np.random.SeedSequence([purpose, *parts]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def encode(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> bytes:
    """Serialises tensors and a note of JSON values as safetensors."""
    from safetensors.torch import save

    return save({name: value.contiguous().cpu() for name, value in tensors.items()}, {_NOTE: json.dumps(note)})


def decode(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what :func:`encode` wrote: tensors and note.

    Raises:
        ValueError: the content is not a checkpoint.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return tensors, json.loads(header["__metadata__"][_NOTE])
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"no checkpoint ({error})") from error


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Prepends ``prefix.`` to the names of tensors."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Selects the tensors named ``prefix.*`` and removes the prefix."""
    return {n.removeprefix(f"{prefix}."): value for n, value in tensors.items() if n.startswith(f"{prefix}.")}


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """State of a model without its frozen parameters."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State tensors of the optimiser, named ``<parameter number>.<name>``."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, values in state.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], rates: list[float]) -> None:
    """Restores state tensors and the learning rates of the parameter groups."""
    whole = optimizer.state_dict()
    for key, value in tensors.items():
        number, name = key.split(".")
        whole["state"].setdefault(int(number), {})[name] = value
    for group, rate in zip(whole["param_groups"], rates, strict=True):
        group["lr"] = rate
    optimizer.load_state_dict(whole)


def save_weights(model: nn.Module) -> bytes:
    """Serialises a model's weights as safetensors."""
    from safetensors.torch import save

    return save({name: value.contiguous().cpu() for name, value in model.state_dict().items()})


def load_weights(model: nn.Module, content: bytes) -> nn.Module:
    """Loads weights that :func:`save_weights` wrote into a model of the same shape; returns it in eval mode.

    Raises:
        ValueError: the weights are another model's; names the first wrong tensor with both shapes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
    except SafetensorError as error:
        raise ValueError(f"no safetensors ({error})") from error
    load_state(model, tensors)
    return model.eval()
