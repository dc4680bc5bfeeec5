"""The demo as a newcomer runs it: what it promises has to hold on people that nobody trained on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from affect import concordance, recipes
from affect.pipeline.evaluate import score_predictions

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
    judged = score_predictions(places.out, places.truth)
    scores = {a.title: concordance.score(judged.truth.moments(a.tracks)) for a in judged.answers}
    assert list(scores) == ["face", "behavior", "audio", "dcmmoe", "raav"]
    for system, score in scores.items():
        assert score.low.min() > 0, system
        assert score.num_units == 5
    assert scores["dcmmoe"].ccc[2] >= 0.5 and scores["raav"].ccc[2] >= 0.5
    assert f"submission:  {places.out}/submission.txt" in done.stdout
    template = Path(places.template).read_text().splitlines()
    submission = (Path(places.out) / "submission.txt").read_text().splitlines()
    assert [line.split(",")[0] for line in submission] == [line.split(",")[0] for line in template]
