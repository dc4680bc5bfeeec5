"""Extraction on a Ray of several nodes: nodes come and go while it runs."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from affect import files
from affect.pipeline.store import Store
from tests.conftest import Micro

ROOT = Path(__file__).parent.parent.parent
LIMIT_S = 300.0


@pytest.fixture
def cluster(local_ray: str) -> Iterator[Cluster]:
    """A head that runs no work, beside the session's own Ray."""
    address = os.environ.pop("RAY_ADDRESS", None)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000, "include_dashboard": False},
    )
    yield cluster
    cluster.shutdown()
    if address:
        os.environ["RAY_ADDRESS"] = address


def start(cluster: Cluster, micro: Micro, store: str, *more: str) -> subprocess.Popen[str]:
    """An extraction of the micro corpus in clips of half a second, as a user starts it."""
    weights = ["--face.weights", micro.run.face.weights, "--behavior.weights", micro.run.behavior.weights]
    places = ["--videos", micro.places.videos, "--store", store]
    pools = ["--face.min-actors", "1", "--face.max-actors", "2", "--face.num-cpus", "0.3"]
    pools += ["--behavior.num-cpus", "0.3", "--behavior.max-actors", "2", "--audio.num-cpus", "0.2"]
    return subprocess.Popen(
        [sys.executable, "jobs/extract.py", "demo", *places, *weights, *pools, *more],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": cluster.address, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(store: str, kind: str, number: int, process: subprocess.Popen[str]) -> None:
    """Until so many clips of a kind are there."""
    end = time.monotonic() + LIMIT_S
    while len(Store(store).keys(kind)) < number:
        assert process.poll() is None and time.monotonic() < end, process.stdout and process.stdout.read()
        time.sleep(0.05)


def contents(store: str) -> dict[str, bytes]:
    return {name: files.read(f"{store}/{name}") for name, _, _ in files.walk(store) if not name.startswith("_")}


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, said
    return said


@pytest.mark.slow
def test_a_node_that_comes_in_mid_run_is_used_and_one_that_goes_is_survived(
    cluster: Cluster, micro: Micro, tmp_path: Path
):
    store, plain = str(tmp_path / "store"), str(tmp_path / "plain")
    clips = ["--grid.clip-s", "2.0"]
    cluster.add_node(num_cpus=1, labels={"kind": "a"})
    quiet = finish(start(cluster, micro, plain, *clips))
    assert "nodes" not in quiet.splitlines()[-1]
    process = start(cluster, micro, store, *clips, "--face.max-actors", "4")
    wait_for(store, "face", 1, process)
    second = cluster.add_node(num_cpus=1, labels={"kind": "b"})
    said = finish(process)
    assert "on 2 nodes" in said and contents(store) == contents(plain)
    again = str(tmp_path / "again")
    process = start(cluster, micro, again, *clips)
    wait_for(again, "face", 2, process)
    cluster.remove_node(second, allow_graceful=False)
    assert "units 18 ok" in finish(process) and contents(again) == contents(plain)


@pytest.mark.slow
def test_actors_are_placed_by_label(cluster: Cluster, micro: Micro, tmp_path: Path):
    cluster.add_node(num_cpus=1, labels={"kind": "a"})
    cluster.add_node(num_cpus=1, labels={"kind": "b"})
    labels = [word for part in ("face", "behavior", "audio") for word in (f"--{part}.node-label", "kind=b")]
    said = finish(start(cluster, micro, str(tmp_path / "one"), "--grid.clip-s", "2.0", *labels))
    assert "units 18 ok" in said and " nodes" not in said.splitlines()[-1]
    spread = ["--face.node-label", "kind=a", "--behavior.node-label", "kind=b"]
    said = finish(start(cluster, micro, str(tmp_path / "two"), "--grid.clip-s", "2.0", *spread))
    assert "units 18 ok" in said and "on 2 nodes" in said
