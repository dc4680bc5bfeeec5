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

    The request replaces those of other jobs until they repeat them, within 20 s.

    Source: https://docs.ray.io/en/latest/cluster/running-applications/autoscaling/reference.html

    Args:
        processes: CPUs, GPUs and node labels of each.
    """
    bundles: list[dict[str, Any]] = [{"CPU": cpus, "GPU": gpus} for cpus, gpus, _ in processes]
    request_resources(bundles=bundles, bundle_label_selectors=[dict(labels) for _, _, labels in processes])
    try:
        asked = _status().cluster_resource_state.cluster_resource_state_version
        deadline = time.monotonic() + ASK_S
        while time.monotonic() < deadline:
            answer = _status().autoscaling_state
            if answer.last_seen_cluster_resource_state_version > asked:
                return not answer.infeasible_cluster_resource_constraints
            time.sleep(0.2)
        return True
    finally:
        request_resources(bundles=[])


def _status() -> Any:  # noqa: ANN401 -- made at run time
    """State of the cluster and of its autoscaler."""
    worker: Any = ray._private.worker.global_worker
    return _REPLY.FromString(worker.gcs_client.get_cluster_status())
