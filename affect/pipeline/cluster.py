"""What a Ray cluster has, and what it may grow to."""

import ray
from ray._private.state import state

WAIT_FOR_NODES_S = 6 * 3600
"""How long a job may go without any progress: spot nodes may not be had for hours."""


def may_grow() -> bool:
    """Whether an autoscaler may add nodes."""
    return bool(state.get_max_resources_from_cluster_config())


def room() -> dict[str, float]:
    """CPUs, GPUs and other resources of all nodes that are there, or that an autoscaler may add; the larger counts.

    A cluster whose worker groups start at zero has nothing yet, and is no reason to refuse a job.

    Source: as Ray Train asks (``ray.train.v2._internal.execution.worker_group``); Ray has no public way.
    """
    there = ray.cluster_resources()
    possible = state.get_max_resources_from_cluster_config() or {}
    return {name: max(there.get(name, 0.0), float(possible.get(name, 0))) for name in {*there, *possible}}
