"""The page on videos and ratings of one's own, to the letter; and ratings in every format against exact labels."""

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from affect.concordance import Moments, merge
from affect.corpus import affwild2, labels
from affect.corpus.videos import find
from affect.learning import batches
from affect.pipeline.assemble import assemble
from affect.pipeline.probe import probe_videos
from affect.pipeline.train import train
from affect.plan.clips import Video
from affect.settings import recipes
from affect.settings.labels import Labels
from affect.settings.run import Run
from affect.storage.store import Store
from affect.tracks.labels import frame_labels
from affect.tracks.tables import load_track
from affect.trained.models import Model
from tests.jobs import LIMIT_S
from tests.own_ratings import FORMATS, corpus
from tests.test_documents import code

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "own-ratings.md"
CPU = torch.device("cpu")
pytestmark = pytest.mark.xdist_group("walks")


class Walk(NamedTuple):
    """What the page leaves.

    Args:
        folder: its folder.
        said: output of each command by its second word.
    """

    folder: Path
    said: dict[str, str]


@pytest.fixture(scope="module")
def walk(local_ray: str, tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """Runs the page's commands from the ratings on to the prediction."""
    folder = tmp_path_factory.mktemp("page")
    text = PAGE.read_text().partition("## Other files")[0]
    lines = [line for line in code(text) if line.startswith("python ")]
    environment = {**os.environ, "RAY_ADDRESS": local_ray, "PYTHONPATH": str(ROOT)}
    options: Any = {"cwd": folder, "env": environment, "timeout": LIMIT_S}
    said = {}
    for line in lines:
        words = [str(ROOT / word) if word.startswith("jobs/") else word for word in shlex.split(line)[1:]]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, **options)
        assert done.returncode == 0, line + done.stdout[-3000:] + done.stderr[-3000:]
        said[shlex.split(line)[1]] = done.stdout
    return Walk(folder, said)


@pytest.mark.slow
def test_the_page_ends_with_predictions_and_its_claim(walk: Walk):
    assert list(walk.said) == ["-m", "jobs/train.py", "jobs/predict.py", "jobs/evaluate.py"]
    said = walk.said["jobs/train.py"]
    lags = said.partition("--labels.lag-s ")[2].split()[0]
    found = dict(pair.split("=") for pair in lags.split(","))
    for rater, lag_s in (("anna", 1.2), ("ben", 2.0), ("cleo", 0.6)):
        assert float(found[rater]) == pytest.approx(lag_s, abs=0.25)
    assert "linear: CCC over folds, each video by a map that never saw it: valence 0.9" in said
    assert "│ linear │ 0.9" in walk.said["jobs/evaluate.py"]
    out = walk.folder / "mine" / "predictions"
    assert (out / "report" / "index.html").exists()
    assert len(list(out.glob("*.eaf"))) == len(list(out.glob("*.csv"))) - 1 == 5  # videos.csv is the summary


def fitted(run: Run, given: labels.Annotations, videos: list[Video], store: Store, runs: Path) -> Model:
    """The model that is trained on annotations."""
    run, gold = frame_labels(given, run, videos, store)
    [model] = train(run, assemble(run, videos, gold, store), store, str(runs))
    return model


@pytest.mark.slow
@pytest.mark.usefixtures("pools_here")
def test_ratings_in_every_format_teach_what_exact_labels_teach(walk: Walk, tmp_path: Path):
    """Mean CCC on people that nobody rated, within .03."""
    talks, store, run = walk.folder / "talks", Store(str(walk.folder / "mine" / "store")), recipes.blendshapes()
    videos = probe_videos(find(str(talks / "videos")), store, {})
    unseen = probe_videos(find(str(talks / "held_out" / "videos")), store, {})
    truth = affwild2.read_folder(str(talks / "held_out" / "labels"))
    held_out = [load_track(store, ref) for ref in assemble(run, unseen, {"held_out": truth}, store)]

    def score(model: Model) -> float:
        task, network = model.task(), model.network(CPU)
        tracks = [task.prepare(track) for track in held_out]
        moments = [Moments.of(t.gold, task.predict(t, batches.run(task, network, t, CPU))) for t in tracks]
        return float(merge(moments).ccc().mean())

    exact = score(fitted(run, labels.read(str(talks / "labels"), Labels()), videos, store, tmp_path / "exact"))
    reached = {}
    for name, write in FORMATS.items():
        place, how = write(tmp_path / name, corpus(talks), np.random.default_rng(1))
        given = labels.read(place, how, "optional")
        reached[name] = score(fitted(replace(run, labels=how), given, videos, store, tmp_path / f"{name}-runs"))
    print(f"exact {exact:.3f}, " + ", ".join(f"{name} {value:.3f}" for name, value in reached.items()))
    assert exact > 0.9 and all(value > exact - 0.03 for value in reached.values())
