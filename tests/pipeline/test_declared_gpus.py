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
    assert placed["audio"].endswith("; audio on - - - -")
    for faces in (placed["face"], placed["audio"].partition(";")[0]):  # Ray decides which cards
        cards = faces.removeprefix("face on ").split()
        assert len(cards) == 8 and max(map(cards.count, cards)) <= 5
    assert len(recipes) > 10
    assert with_share.startswith("0.5 cuda ") and with_share[-1] in "0123"
    assert without == "0.0 cpu none"
