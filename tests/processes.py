"""Functions in several processes that gloo joins."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def spawn(work: Callable[..., Any], processes: int, *args: object) -> list[Any]:
    """Run work(rank, ...) in processes that gloo joins; their results by rank."""
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    port = int(np.random.default_rng().integers(20_000, 60_000))
    mp.spawn(_enter, args=(work, processes, port, queue, *args), nprocs=processes)
    return [value for _, value in sorted((queue.get() for _ in range(processes)), key=lambda pair: pair[0])]


def _enter(rank: int, work: Callable[..., Any], processes: int, port: int, queue: Any, *args: object) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=processes)
    queue.put((rank, work(rank, *args)))
    dist.destroy_process_group()
