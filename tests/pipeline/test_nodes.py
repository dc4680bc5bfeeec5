"""Extraction on a Ray of several nodes: nodes come and go while it runs."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from affect.storage.store import Store
from jobs.benchmarks.servers import ray_cluster
from tests.conftest import Micro
from tests.jobs import finish, start_job, wait_until

NUM_COPIES = 25
SLOW = "tests/pipeline/extract_slowly.py"


@pytest.fixture
def cluster(local_ray: str) -> Iterator[Cluster]:
    """A head that runs no work, beside the session's own Ray."""
    address = os.environ.pop("RAY_ADDRESS", None)
    with ray_cluster() as cluster:
        yield cluster
    if address:
        os.environ["RAY_ADDRESS"] = address


@pytest.fixture
def videos(micro: Micro, tmp_path: Path) -> str:
    """Copies of one video: a minute of work for one actor, however fast the machine is."""
    source = next(Path(micro.places.videos).glob("*.mp4"))
    (tmp_path / "videos").mkdir()
    for number in range(NUM_COPIES):
        shutil.copy(source, tmp_path / "videos" / f"copy{number:02d}.mp4")
    return str(tmp_path / "videos")


def start(
    cluster: Cluster, micro: Micro, videos: str, store: str, *more: str, job: str = "extract"
) -> subprocess.Popen[str]:
    """An extraction in clips of two seconds, as a user starts it."""
    weights = ["--face.weights", micro.run.face.weights, "--behavior.weights", micro.run.behavior.weights]
    places = ["--videos", videos, "--store", store, "--grid.clip-s", "2.0"]
    pools = ["--face.min-actors", "1", "--face.max-actors", "2", "--face.num-cpus", "0.3"]
    pools += ["--behavior.num-cpus", "0.3", "--behavior.max-actors", "2", "--audio.num-cpus", "0.2"]
    return start_job(job, *places, *weights, *pools, *more, RAY_ADDRESS=cluster.address)


def wait_for(store: str, kind: str, number: int, process: subprocess.Popen[str]) -> None:
    """Until so many clips of a kind are there."""
    wait_until(lambda: len(Store(store).keys(kind)) >= number, process)


@pytest.mark.slow
def test_a_node_that_comes_in_mid_run_is_used(cluster: Cluster, micro: Micro, videos: str, tmp_path: Path):
    """One that goes in mid-run is among the rounds of ``jobs/benchmark.py chaos``."""
    store = str(tmp_path / "store")
    cluster.add_node(num_cpus=1)
    process = start(cluster, micro, videos, store, job=SLOW)
    wait_for(store, "face", 1, process)
    cluster.add_node(num_cpus=1)  # Ray Data looks for new nodes every 20 s
    said = finish(process)
    assert f"units {9 * NUM_COPIES} ok" in said and "on 2 nodes" in said


@pytest.mark.slow
def test_actors_are_placed_by_label(cluster: Cluster, micro: Micro, tmp_path: Path):
    videos = micro.places.videos
    cluster.add_node(num_cpus=1, labels={"kind": "a"})
    cluster.add_node(num_cpus=1, labels={"kind": "b"})
    labels = [word for part in ("face", "behavior", "audio") for word in (f"--{part}.node-label", "kind=b")]
    said = finish(start(cluster, micro, videos, str(tmp_path / "one"), *labels))
    assert "units 18 ok" in said and " nodes" not in said.splitlines()[-1]
    spread = ["--face.node-label", "kind=a", "--behavior.node-label", "kind=b"]
    said = finish(start(cluster, micro, videos, str(tmp_path / "two"), *spread))
    assert "units 18 ok" in said and "on 2 nodes" in said
