"""Extraction on a Ray of several nodes: nodes come and go while it runs; several jobs share the work."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from affect.corpus.videos import Shard
from affect.storage.store import Store
from jobs.benchmarks.servers import objects, ray_cluster
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


@pytest.mark.slow
def test_four_parts_at_once_write_what_one_job_writes(cluster: Cluster, micro: Micro, tmp_path: Path):
    """Four jobs on one cluster and one store, none of which knows of the others, with videos for two people."""
    cluster.add_node(num_cpus=4)
    (tmp_path / "videos").mkdir()
    source = next(Path(micro.places.videos).glob("*.mp4"))
    for name in ("a", "a_left", "b", "c", "d", "e", "f"):  # a_left is a video: a part without it must not make it a's
        shutil.copy(source, tmp_path / "videos" / f"{name}.mp4")
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    labels = tmp_path / "labels"
    labels.mkdir()
    for track in ("a", "a_left", "b_right"):
        (labels / f"{track}.txt").write_text("valence,arousal\n" + "0.1,0.1\n" * 50)
    places = (str(tmp_path / "videos"), str(tmp_path / "one"), "--labels", str(labels))
    finish(start(cluster, micro, *places), code=3)
    places = (places[0], str(tmp_path / "four"), *places[2:])
    jobs = [start(cluster, micro, *places, "--shard", f"{number}/4") for number in range(1, 5)]
    holds = [Shard(number, 4).holds("broken.mp4") for number in range(1, 5)]
    said = [finish(job, code=3 if broken else 0) for job, broken in zip(jobs, holds, strict=True)]
    one, four = objects(str(tmp_path / "one")), objects(str(tmp_path / "four"))
    assert one == four and len(one) == 8 + 7 * 9
    done = sum(int(found) for text in said for found in re.findall(r"done now (\d+)", text))
    assert done == 7 * 9 and sum("8 videos are of part" in text for text in said) == 4
    assert "missing" in finish(start(cluster, micro, *places, "--status"), code=3)
