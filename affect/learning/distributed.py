"""What the processes of one training share: who is who, gathered tensors, batch normalisation over the whole batch."""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn
from torch import Tensor, nn

Part = TypeVar("Part")


def world() -> tuple[int, int]:
    """This process' number and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def wait_for_all() -> None:
    """Go on when every process is here."""
    if world()[1] > 1:
        dist.barrier()


def gather(value: Tensor) -> Tensor:
    """Every process' tensor, of one shape, along the first axis; without gradient."""
    _, processes = world()
    if processes == 1:
        return value
    parts = [torch.empty_like(value) for _ in range(processes)]
    dist.all_gather(parts, value.contiguous())
    return torch.cat(parts)


def gather_with_gradient(value: Tensor) -> Tensor:
    """Every process' tensor along the first axis; the gradient of what comes of it reaches the process it is from."""
    return torch.cat(dist.nn.functional.all_gather(value)) if world()[1] > 1 else value


def gather_lists(own: list[Part]) -> list[Part]:
    """Every process' list, one after the other."""
    _, processes = world()
    if processes == 1:
        return own
    gathered: list[Any] = [None] * processes
    dist.all_gather_object(gathered, own)
    return [part for parts in gathered for part in parts]


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the shares of all processes together, on a CPU, where torch has none.

        y = (x - mean) / sqrt(var + eps) * weight + bias,   mean and var over everyone's points

    Source: torch.nn.SyncBatchNorm, which refuses tensors on a CPU.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of axes."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, ...) over every axis but the second."""
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
    """Sum with its gradient."""
    return dist.nn.functional.all_reduce(value)


def synchronise(model: nn.Module, device: torch.device) -> nn.Module:
    """Let batch normalisation see the whole batch and not a process' share of it; names of the state stay."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.__class__ = GlobalBatchNorm
    return model
