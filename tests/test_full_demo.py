"""The demo as a newcomer runs it: what it promises has to hold on people that nobody trained on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from affect import recipes
from affect.corpus import affwild2
from affect.pipeline.evaluate import read_predictions, score_systems

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_demo_reads_people_it_never_saw(tmp_path: Path):
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_AUTH_MODE")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "demo.py")],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    places = recipes.demo_places(str(tmp_path / "demo"))
    scores = score_systems(read_predictions(places.out), affwild2.read_folder(places.truth))
    for system, score in scores.items():
        assert score.low.min() > 0, system
        assert score.num_tracks == 5
    assert scores["dcmmoe"].ccc[2] >= 0.5 and scores["raav"].ccc[2] >= 0.5
    assert f"submission:  {places.out}/submission.txt" in done.stdout
    template = Path(places.template).read_text().splitlines()
    submission = (Path(places.out) / "submission.txt").read_text().splitlines()
    assert [line.split(",")[0] for line in submission] == [line.split(",")[0] for line in template]
