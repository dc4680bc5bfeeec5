"""Functions that run in several processes, joined by torch.distributed with gloo."""

import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def spawn(work: Callable[..., Any], processes: int, *args: object) -> list[Any]:
    """Runs work(rank, ...) in every process of a group; the results, by rank."""
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:  # a port could be in use
        mp.spawn(_enter, args=(work, processes, f"file://{folder}/meet", queue, *args), nprocs=processes)
    return [value for _, value in sorted((queue.get() for _ in range(processes)), key=lambda pair: pair[0])]


def _enter(rank: int, work: Callable[..., Any], processes: int, place: str, queue: Any, *args: object) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=place, rank=rank, world_size=processes)
    queue.put((rank, work(rank, *args)))
    dist.destroy_process_group()
