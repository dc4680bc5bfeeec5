"""Ray's autoscaler: whether there is one, and which processes it could start nodes for.

A cluster whose groups of nodes start at none can run a job. Ray's own check of a request comes only after it was made.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray._private.worker
from ray.autoscaler.sdk import request_resources
from ray.core.generated import autoscaler_pb2

ASK_S = 30.0
"""Most seconds to wait for an answer; an autoscaler looks every five seconds."""
_REPLY: Any = autoscaler_pb2.GetClusterStatusReply  # type: ignore[attr-defined] # made at run time


def may_grow() -> bool:
    """Whether an autoscaler may add nodes.

    Source: the state that an autoscaler (v2) reports has a version above 0; Ray has no public function.
    """
    return bool(_status().autoscaling_state.autoscaler_state_version > 0)


def could_start(processes: Sequence[tuple[float, float, Mapping[str, str]]]) -> bool:
    """Whether an autoscaler has, or could start, nodes for processes together; True if it does not say so in time.

    A cluster has one request at a time. This one replaces that of Ray Data, which repeats it within 20 s, and is made
    again where Ray Data's replaces it before the autoscaler has looked.

    Source: https://docs.ray.io/en/latest/cluster/running-applications/autoscaling/reference.html

    Args:
        processes: CPUs, GPUs and node labels of each.
    """
    bundles: list[dict[str, Any]] = [{"CPU": cpus, "GPU": gpus} for cpus, gpus, _ in processes]
    selectors, deadline = [dict(labels) for _, _, labels in processes], time.monotonic() + ASK_S
    try:
        while time.monotonic() < deadline:
            request_resources(bundles=bundles, bundle_label_selectors=selectors)
            asked = _status().cluster_resource_state
            while (answer := _status()).autoscaling_state.last_seen_cluster_resource_state_version <= (
                asked.cluster_resource_state_version
            ) and time.monotonic() < deadline:
                time.sleep(0.2)
            held, ours = answer.cluster_resource_state.cluster_resource_constraints, asked.cluster_resource_constraints
            if ours and held == ours:
                return not answer.autoscaling_state.infeasible_cluster_resource_constraints
        return True
    finally:
        request_resources(bundles=[])


def _status() -> Any:  # noqa: ANN401 -- made at run time
    """State of the cluster and of its autoscaler."""
    worker: Any = ray._private.worker.global_worker
    return _REPLY.FromString(worker.gcs_client.get_cluster_status())
