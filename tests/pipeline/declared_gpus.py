"""Places the pools of every recipe on a Ray that declares GPUs, as planned, and one actor more."""

import os
from dataclasses import replace
from typing import Any

import ray

from affect.modalities import KINDS
from affect.pipeline.cluster import device, pool_sizes
from affect.settings.extraction import Pool
from affect.settings.recipes import RECIPES

GPUS = {"face": (0.5, 0.2, 8), "behavior": (2.0, 0.8, 16), "audio": (0.5, 0.0, 4)}
"""CPUs, GPUs and most actors of each pool, as the cluster's page has them."""


class Holder:
    """An actor that holds its resources."""

    def card(self) -> str:
        """GPUs that Ray gave it."""
        return ",".join(map(str, ray.get_gpu_ids()))

    def decide(self) -> tuple[str, str]:
        """Device that an actor of the pipeline would take, and the GPUs that its libraries would see."""
        return device(), os.environ.get("CUDA_VISIBLE_DEVICES", "all")


def start(pool: Pool) -> Any:
    """An actor with the resources of a pool's."""
    return ray.remote(num_cpus=pool.num_cpus, num_gpus=pool.num_gpus)(Holder).remote()


def together(pools: dict[str, Pool]) -> dict[str, list[str]]:
    """GPUs of the planned actors of all pools, after all of them have started; one more actor has no room."""
    sizes = pool_sizes(pools, 100)
    held = {name: [start(pools[name]) for _ in range(size)] for name, size in sizes.items()}
    cards = {name: ray.get([each.card.remote() for each in actors], timeout=120) for name, actors in held.items()}
    growing = [name for name in pools if sizes[name] < pools[name].max_actors]
    more = [start(pools[name]) for name in growing]
    ready, _ = ray.wait([each.card.remote() for each in more], timeout=1.0) if more else ([], [])
    assert not ready, f"there is room for more than {sizes}"
    for actor in [*more, *(each for actors in held.values() for each in actors)]:
        ray.kill(actor)
    return cards


ray.init(logging_level="error")
known: dict[tuple[str, ...], str] = {}
for name, (recipe, _) in RECIPES.items():
    run = recipe()
    stages = {kind: KINDS[kind].stage(run) for kind in sorted(run.extracted, key=lambda kind: -GPUS[kind][1])}
    names = ("num_cpus", "num_gpus", "max_actors")
    pools = {kind: replace(stage, **dict(zip(names, GPUS[kind], strict=True))) for kind, stage in stages.items()}
    if tuple(pools) not in known:
        cards = together(pools)
        known[tuple(pools)] = "; ".join(
            f"{kind} on {' '.join(sorted(c or '-' for c in cards[kind]))}" for kind in pools
        )
    print(f"{name}: {known[tuple(pools)]}")
for gpus in (0.5, 0.0):
    actor = start(Pool(num_cpus=0.1, num_gpus=gpus))
    print(gpus, *(value or "none" for value in ray.get(actor.decide.remote())))
