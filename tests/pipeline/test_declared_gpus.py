"""Pools on a Ray that declares GPUs which are not there."""

import os
import subprocess
import sys

import pytest

from jobs.benchmarks.servers import ray_cluster
from tests.jobs import ROOT


@pytest.mark.slow
def test_every_recipes_pools_are_placed_as_planned_and_an_actor_without_a_share_sees_no_gpu():
    with ray_cluster() as cluster:
        cluster.add_node(num_cpus=16, num_gpus=4)
        done = subprocess.run(
            [sys.executable, "tests/pipeline/declared_gpus.py"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": cluster.address},
            capture_output=True,
            text=True,
            timeout=500,
        )
    assert done.returncode == 0, done.stderr
    *recipes, with_share, without = done.stdout.splitlines()
    placed = dict(line.split(": ") for line in recipes)
    every = "behavior on 0 1 2 3; face on 0 1 2 3; audio on - - - -"
    assert placed["raav"] == placed["dcmmoe"] == placed["demo"] == every
    assert placed["behavior"] == "behavior on 0 1 2 3"
    assert placed["face"].startswith("face on ") and len(placed["face"].split()) == 10
    assert placed["audio"] == "face on " + placed["face"].removeprefix("face on ") + "; audio on - - - -"
    assert len(recipes) > 10
    assert with_share.startswith("0.5 cuda ") and with_share[-1] in "0123"
    assert without == "0.0 cpu none"
