"""The demo as a newcomer runs it: what it promises has to hold on people that nobody trained on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from affect import concordance
from affect.concordance import Moments, Score
from affect.corpus import affwild2
from affect.corpus.videos import find
from affect.evaluation.evaluate import score_predictions
from affect.learning import batches
from affect.pipeline.assemble import assemble
from affect.pipeline.probe import probe_videos
from affect.settings import recipes
from affect.settings.labels import Labels
from affect.storage.store import Store
from affect.tracks.tables import load_track
from affect.trained.models import load_models

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.xdist_group("walks")


def audio_gain(root: str) -> Score:
    """CCC of the trained audio model minus that of the same model before training, on the held-out people."""
    run, places = recipes.demo(root), recipes.demo_places(root)
    store, cpu = Store(places.store), torch.device("cpu")
    videos = probe_videos(find(places.new_videos), store, {})
    refs = assemble(run, videos, {"development": affwild2.read_folder(places.truth)}, store)
    tracks = [load_track(store, ref) for ref in refs]
    model = load_models(run, places.runs)["audio"]
    task = model.task()
    torch.manual_seed(run.wavlm.fit.seed)
    trained, untrained = (
        [Moments.of(track.gold, task.predict(track, batches.run(task, network, track, cpu))) for track in tracks]
        for network in (model.network(cpu), task.build())
    )
    return concordance.difference(trained, untrained)


@pytest.mark.slow
def test_the_demo_reads_people_it_never_saw(local_ray: str, tmp_path: Path):
    environment = {k: v for k, v in os.environ.items() if k != "RAY_AUTH_MODE"} | {"RAY_ADDRESS": "local"}
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
    judged = score_predictions(places.out, places.truth, Labels())
    scores = {a.title: concordance.score(judged.truth.moments(a.tracks)) for a in judged.answers}
    assert list(scores) == ["face", "behavior", "audio", "dcmmoe", "raav"]
    for system, score in scores.items():
        assert score.ccc.min() > 0 and score.low[2] > 0, system  # five videos say little of one dimension alone
        assert score.num_units == 5
    assert scores["dcmmoe"].ccc[2] >= 0.5 and scores["raav"].ccc[2] >= 0.5
    assert f"submission:  {places.out}/submission.txt" in done.stdout
    template = Path(places.template).read_text().splitlines()
    submission = (Path(places.out) / "submission.txt").read_text().splitlines()
    assert [line.split(",")[0] for line in submission] == [line.split(",")[0] for line in template]
    gain = audio_gain(str(tmp_path / "demo"))
    print(f"audio minus untrained audio: {gain}")
    assert gain.ccc[2] > 0.5 and gain.low[2] > 0.3 and gain.num_units == 5
