"""Collective operations of a training with several processes, and batch normalisation over the whole batch."""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn
from torch import Tensor, nn

Part = TypeVar("Part")


def world() -> tuple[int, int]:
    """Returns the rank of this process and the number of processes; (0, 1) outside of torch.distributed."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def wait_for_all() -> None:
    """Blocks until every process has called it."""
    if world()[1] > 1:
        dist.barrier()


def gather(value: Tensor) -> Tensor:
    """Concatenates every process' tensor along the first axis, without gradient. Shapes are equal."""
    _, processes = world()
    if processes == 1:
        return value
    parts = [torch.empty_like(value) for _ in range(processes)]
    dist.all_gather(parts, value.contiguous())
    return torch.cat(parts)


def gather_with_gradient(value: Tensor) -> Tensor:
    """Concatenates every process' tensor along the first axis; gradients flow back to each tensor's process."""
    return torch.cat(dist.nn.functional.all_gather(value)) if world()[1] > 1 else value


def gather_lists(values: list[Part]) -> list[Part]:
    """Concatenates every process' list, in the order of ranks."""
    _, processes = world()
    if processes == 1:
        return values
    gathered: list[Any] = [None] * processes
    dist.all_gather_object(gathered, values)
    return [part for parts in gathered for part in parts]


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the shares of all processes, for CPUs.

        y = (x - mean) / sqrt(var + eps) * weight + bias          mean and var over the points of all processes

    Source: torch.nn.SyncBatchNorm, which supports GPUs only.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Accepts any number of axes."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (B, C, ...) over every axis but the second."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = x.numel() // x.shape[1] * world()[1]
        mean = _sum_over_processes(x.sum(dim=axes)) / count
        centred = x - mean.view(shape)
        var = _sum_over_processes(centred.square().sum(dim=axes)) / count
        with torch.no_grad():
            momentum = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(var * count / max(1, count - 1), momentum)
            self.num_batches_tracked.add_(1)
        return centred * (self.weight * (var + self.eps).rsqrt()).view(shape) + self.bias.view(shape)


def _sum_over_processes(value: Tensor) -> Tensor:
    """All-reduces a sum, with gradient."""
    return dist.nn.functional.all_reduce(value)


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Converts batch normalisation to statistics over the whole batch; names in the state dict stay."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.__class__ = GlobalBatchNorm
    return model
