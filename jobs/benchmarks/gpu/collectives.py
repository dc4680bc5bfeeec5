"""Collective operations of torch.distributed in a single process: types that a backend refuses show here."""

import tempfile

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.nn
from torch import nn

from .book import Book
from .compare import difference

TYPES = (torch.bool, torch.float64, torch.float32, torch.bfloat16)
"""Types that a training gathers."""


def collectives(book: Book, device: torch.device) -> None:
    """Gathers every type that a training gathers; on a GPU also gradients and the batch normalisation's statistics."""
    with tempfile.TemporaryDirectory() as folder:
        if device.type == "cuda":
            torch.cuda.set_device(0)
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=0, world_size=1)
        try:
            _gather(book, device)
            if device.type == "cuda":
                _gradient(book, device)
                _batch_norm(book, device)
        finally:
            dist.destroy_process_group()


def _gather(book: Book, device: torch.device) -> None:
    changed = 0
    for kind in TYPES:
        value = torch.ones(3, 5, 2, device=device).to(kind)
        parts = [torch.zeros_like(value)]
        dist.all_gather(parts, value)
        changed += not torch.equal(parts[0], value)
    objects: list[object] = [None]
    dist.all_gather_object(objects, [np.arange(3.0)])
    dist.barrier()
    book.note("collectives: types that come back changed", float(changed), f"of {len(TYPES)}", most=0)


def _gradient(book: Book, device: torch.device) -> None:
    x = torch.randn(3, 5, 2, device=device).bfloat16().requires_grad_()
    (torch.cat(dist.nn.functional.all_gather(x)).float() ** 2).sum().backward()
    book.note("collectives: gradient through a gather", difference(x.grad, 2 * x), most=1e-6)


def _batch_norm(book: Book, device: torch.device) -> None:
    """SyncBatchNorm's own function, which the layer skips in a single process."""
    from torch.nn.modules._functions import SyncBatchNorm

    h, norm = torch.randn(16, 256, device=device), nn.BatchNorm1d(256).to(device)
    assert norm.running_mean is not None and norm.running_var is not None
    expected = nn.functional.batch_norm(h, None, None, norm.weight, norm.bias, training=True)
    for kind, most in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        running = (norm.running_mean.clone(), norm.running_var.clone())
        shared = SyncBatchNorm.apply(h.to(kind), norm.weight, norm.bias, *running, norm.eps, 0.1, dist.group.WORLD, 1)
        book.note(f"collectives: SyncBatchNorm in {kind}", difference(shared, expected), most=most)
