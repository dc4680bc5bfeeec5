"""Extraction on a cluster that begins without nodes: an autoscaler adds and removes them, and says which it has."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from affect.storage.store import Store
from tests.conftest import Micro
from tests.jobs import finish, start_job, wait_until
from tests.pipeline.autoscaling import autoscaling_cluster

pytestmark = pytest.mark.slow
IDLE_S = 4.0
MEMORY = 80_000_000
GROUPS = {
    "cpu": {"resources": {"CPU": 1, "object_store_memory": MEMORY}, "max_workers": 1, "labels": {"affect/node": "cpu"}},
    "gpu": {
        "resources": {"CPU": 1, "GPU": 1, "object_store_memory": MEMORY},
        "max_workers": 2,
        "labels": {"affect/node": "gpu"},
    },
}
WATCH = """
import json, os, ray, sys, time
ray.init(logging_level="ERROR", log_to_driver=False)
while True:
    with open(f"{sys.argv[1]}.new", "w") as file:
        json.dump([[n["NodeID"], n["Labels"].get("affect/node", "head")] for n in ray.nodes() if n["Alive"]], file)
    os.replace(f"{sys.argv[1]}.new", sys.argv[1])
    time.sleep(0.3)
"""
"""Writes the present nodes of a cluster into a file, again and again."""
JOB = "tests/pipeline/extract_declared.py"


class Growing:
    """A cluster without nodes.

    Args:
        address: its address.
        micro: the micro corpus.
        folder: folder for videos and store.
    """

    def __init__(self, address: str, micro: Micro, folder: Path) -> None:
        """Stores the place."""
        self.environment = {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "token"}
        self.environment["RAY_DATA_LOW_UTIL_REQUEST_RELEASE_DELAY_S"] = "5"
        self._micro, self.store, self._videos = micro, str(folder / "store"), folder / "videos"
        self._nodes, self.hold = folder / "nodes.json", folder / "store.hold"
        command = [sys.executable, "-c", WATCH, str(self._nodes)]
        self._watch = subprocess.Popen(command, env={**os.environ, **self.environment})

    def extract(self, copies: int, *more: str) -> subprocess.Popen[str]:
        """An extraction of copies of one video in three clips each, behaviour on GPU nodes."""
        self._videos.mkdir()
        source = next(Path(self._micro.places.videos).glob("*.mp4"))
        for number in range(copies):
            shutil.copy(source, self._videos / f"copy{number:02d}.mp4")
        run = self._micro.run
        flags = ["--face.weights", run.face.weights, "--behavior.weights", run.behavior.weights, "--grid.clip-s", "2.0"]
        flags += ["--face.num-cpus", "0.3", "--face.max-actors", "1", "--face.min-actors", "1"]
        flags += ["--audio.num-cpus", "0.2", "--audio.max-actors", "1", "--behavior.num-cpus", "0.5"]
        flags += ["--behavior.num-gpus", "1", "--behavior.node-label", "affect/node=gpu"]
        places = ["--videos", str(self._videos), "--store", self.store]
        return start_job(JOB, *places, *flags, *more, **self.environment)

    def alive(self, kind: str) -> list[str]:
        """Ids of the nodes of a group that were present half a second ago."""
        rows: list[list[str]] = json.loads(self._nodes.read_text()) if self._nodes.exists() else []
        return [node for node, label in rows if label == kind]

    def close(self) -> None:
        """Ends the process that watches."""
        self._watch.kill()
        self._watch.wait()


@pytest.fixture
def growing(local_ray: str, micro: Micro, tmp_path: Path) -> Iterator[Growing]:
    """A cluster whose groups of nodes begin with none."""
    with autoscaling_cluster(GROUPS, IDLE_S) as address:
        growing = Growing(address, micro, tmp_path)
        yield growing
        growing.close()


def test_a_job_gets_the_nodes_that_it_needs_and_gives_them_back(growing: Growing):
    """A node of behaviour goes while the last clip of sound is held back.

    The other one waits for that clip: Ray keeps an actor for as long as a block that it made is not used up.
    """
    growing.hold.write_text("26")
    process = growing.extract(9, "--behavior.max-actors", "2", "--audio.node-label", "affect/node=cpu")
    wait_until(lambda: len(growing.alive("gpu")) == 2 and len(growing.alive("cpu")) == 1, process)
    wait_until(lambda: len(Store(growing.store).keys("behavior")) == 27, process)
    wait_until(lambda: len(growing.alive("gpu")) < 2, process)
    assert growing.alive("cpu") and len(Store(growing.store).keys("audio")) == 26
    growing.hold.unlink()
    said = finish(process)
    assert "units 81 ok" in said and "on 3 nodes" in said
    deadline = time.monotonic() + 60
    while growing.alive("cpu") or growing.alive("gpu"):
        assert time.monotonic() < deadline, "an idle node stays"


def test_a_node_whose_end_is_announced_gives_its_clip_back(growing: Growing):
    """A spot node gets a notice, and goes; the autoscaler sends another one."""
    process = growing.extract(6, "--behavior.max-actors", "1")
    wait_until(lambda: len(Store(growing.store).keys("behavior")) >= 2, process)
    [node] = growing.alive("gpu")
    notice = ["--node-id", node, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    ray = [str(Path(sys.executable).with_name("ray")), "drain-node", *notice, "--deadline-remaining-seconds", "5"]
    subprocess.run(ray, env={**os.environ, **growing.environment}, check=True, capture_output=True)
    time.sleep(5.0)
    for raylet in psutil.process_iter():
        with suppress(psutil.Error):  # a process that has ended meanwhile
            if raylet.name() == "raylet" and node in " ".join(raylet.cmdline()):
                raylet.kill()
    wait_until(lambda: growing.alive("gpu") not in ([], [node]), process)
    assert "units 54 ok" in finish(process)


def test_a_job_that_no_node_of_the_cluster_can_run_is_refused(growing: Growing):
    assert "no kind of node that the autoscaler may add has room" in finish(
        growing.extract(1, "--behavior.num-cpus", "2"), code=1
    )
