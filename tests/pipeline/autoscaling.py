"""A Ray on this machine whose autoscaler starts and stops nodes: raylets of Ray's fake provider."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

HEAD = "f" * 51 + "00000"
"""Ray's id of the head in its fake provider."""
START_S = 60.0


def _config(address: str, groups: Mapping[str, Any], idle_s: float) -> dict[str, Any]:
    """Configuration of the autoscaler, as ``ray up`` reads it."""
    parts = ("file_mounts", "docker", "auth")
    lists = ("cluster_synced_files", "initialization_commands", "setup_commands", "head_setup_commands")
    lists += ("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands", "rsync_exclude")
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    module = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"  # not by its name: Ray's
    provider = {"type": "external", "module": module, "launch_multiple": True}  # wheel lacks the defaults of that
    provider |= {"head_node_id": HEAD, "gcs_address": address}
    return {
        "cluster_name": "fake",
        "max_workers": sum(group["max_workers"] for group in groups.values()),
        "provider": provider | {"use_node_id_as_ip": True, "disable_node_updaters": True},
        "available_node_types": {**groups, "ray.head.default": head},
        "head_node_type": "ray.head.default",
        "idle_timeout_minutes": idle_s / 60,
        "upscaling_speed": 100.0,
        "rsync_filter": [],
        "file_mounts_sync_continuously": False,
        **{name: {} for name in parts},
        **{name: [] for name in lists},
    }


@contextmanager
def autoscaling_cluster(groups: Mapping[str, Any], idle_s: float) -> Iterator[str]:
    """A head without CPUs, and groups of nodes that begin with none; yields its address.

    Differs from ``ray.cluster_utils.AutoscalingCluster``, which ends every Ray of the machine.

    Args:
        groups: ``resources``, ``max_workers`` and ``labels`` of each group of nodes.
        idle_s: seconds without work after which a node is stopped.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    named = {name: {"node_config": {}, "min_workers": 0, "labels": {}, **group} for name, group in groups.items()}
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:  # short: sockets
        config = Path(folder) / "autoscaler.json"
        config.write_text(json.dumps(_config(address, named, idle_s)))
        hidden = ("RAY_ADDRESS", "CUDA_VISIBLE_DEVICES")  # actors of other tests hide all GPUs from this process
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        environment |= {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1"}
        environment |= {
            "RAY_AUTH_MODE": "token",
            "RAY_CLOUD_INSTANCE_ID": HEAD,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
        }
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={port}", "--num-cpus=0"]
        command += ["--node-ip-address=127.0.0.1", f"--temp-dir={folder}", f"--autoscaling-config={config}"]
        command += ["--include-dashboard=false", "--object-store-memory=100000000", "--dashboard-agent-listen-port=0"]
        try:
            subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=START_S)
            yield address
        finally:
            _kill_all(folder)


def _kill_all(folder: str) -> None:
    """Kills all processes of a Ray, which have its folder in their command lines or environments."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any(folder in word for word in [*process.cmdline(), *process.environ().values()]):
                    found.append(process)
        found = [process for process in found if process.pid != os.getpid() and process.status() != "zombie"]
        if not found:
            return
        for process in found:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        time.sleep(0.2)
