"""Searches on the micro corpus: trials, failures, restarts, folds, and what comes of them."""

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from _pytest.capture import CaptureFixture

from affect.corpus import affwild2
from affect.corpus.videos import find
from affect.pipeline.assemble import assemble
from affect.pipeline.probe import probe_videos
from affect.pipeline.train import train
from affect.pipeline.tune import conclude, prepare, search
from affect.settings.run import Run
from affect.settings.spaces import check, parse
from affect.settings.training import Workers
from affect.storage.store import Store
from affect.tracks.tables import TrackRef
from affect.trained.models import load_model
from affect.trained.runs import with_best as spaces_best
from affect.trained.search import Search, SearchOptions
from tests.conftest import Micro
from tests.jobs import LIMIT_S, wait_until

pytestmark = pytest.mark.usefixtures("pools_here")

ROOT = Path(__file__).parents[2]
WORDS = ["face_transformer.hidden=64,60", "face_transformer.heads=4,8"]
"""Each can be, and 60 with 8 heads cannot."""


NUM_KILLED = 12


@pytest.fixture(scope="module")
def run(trained: Micro) -> Run:
    return replace(trained.run, systems=("face",))


@pytest.fixture(scope="module")
def refs(trained: Micro, run: Run) -> list[TrackRef]:
    store = Store(trained.places.store)
    videos = probe_videos(find(trained.places.videos), store, {})
    return assemble(run, videos, affwild2.read_splits(trained.places.labels), store)


def job_of(micro: Micro, run: Run, refs: list[TrackRef], runs: Path, words: list[str], trials: int = 8) -> Search:
    space = check(parse(words), run)
    return prepare(run, refs, Store(micro.places.store), str(runs), SearchOptions("small", space, trials))


def test_a_search_goes_on_past_failing_trials_and_its_winner_is_trained_judged_and_reproduced(
    trained: Micro, predicted: str, run: Run, refs: list[TrackRef], tmp_path: Path, capsys: CaptureFixture[str]
):
    job = job_of(trained, run, refs, tmp_path / "runs", WORDS)
    trials = search(job)
    assert sorted(trial.name for trial in trials) == [f"{number:03d}" for number in range(1, 9)]
    [first] = [trial for trial in trials if trial.name == "001"]
    assert first.settings == {"face_transformer.hidden": 64, "face_transformer.heads": 4}  # the recipe's own
    failed = [trial for trial in trials if trial.status == "failed"]
    impossible = {"face_transformer.hidden": 60, "face_transformer.heads": 8}
    assert failed and all(trial.settings == impossible and "no multiple of heads" in trial.error for trial in failed)
    assert all(trial.settings != impossible for trial in trials if trial.status != "failed")
    assert [trial.score for trial in trials] == sorted((trial.score for trial in trials), reverse=True)
    assert not Path(job.checkpoints).exists()
    early = json.loads((Path(job.folder) / "best.json").read_text())  # before anything is judged
    assert early["settings"]["face_transformer.hidden"] == trials[0].settings["face_transformer.hidden"]
    assert (Path(job.folder) / "index.html").exists()

    places = trained.places
    sets = [(places.videos, places.labels), (places.new_videos, places.truth)]
    capsys.readouterr()
    conclude(job, trials, sets, {})
    said = capsys.readouterr().out
    assert f"in the search: mean CCC {trials[0].score:.3f}, the highest of 8 trials" in said
    assert "held-out people: winner" in said and "against the search" in said and "no held-out people" not in said
    assert "development, which epochs were selected on: winner" in said
    rows = list(csv.DictReader((Path(job.folder) / "trials.csv").open()))
    assert [row["status"] for row in rows] == [trial.status for trial in trials]
    html = (Path(job.folder) / "index.html").read_text()
    assert "held-out people: winner" in html and html.count("<svg") >= 4

    other = replace(run.face_transformer, fit=replace(run.face_transformer.fit, max_epochs=9))
    best = spaces_best(str(Path(job.folder) / "best.json"), replace(run, face_transformer=other))  # flags do not matter
    assert best.name == "demo-small" and best.face_transformer.heads == trials[0].settings["face_transformer.heads"]
    [model] = train(best, refs, Store(places.store), str(tmp_path / "elsewhere"))
    refit = json.loads((tmp_path / "runs" / "demo-small.json").read_text())["systems"]["face"]
    assert model.address == refit
    assert model.best == load_model(str(tmp_path / "runs" / "face" / refit)).best

    capsys.readouterr()
    again = search(job)  # everything is there
    assert [(trial.name, trial.score) for trial in again if trial.status != "failed"] == [
        (trial.name, trial.score) for trial in trials if trial.status != "failed"
    ]
    assert "goes on with" in capsys.readouterr().out
    for other in (job_of(trained, run, refs, tmp_path / "runs", WORDS[:1]), replace(job, num_trials=9)):
        with pytest.raises(
            ValueError, match=r"tune/small holds a search over another space.*give --search-name another"
        ):
            search(other)


@pytest.mark.slow
def test_a_search_whose_trials_all_die_says_why_and_can_be_gone_on_with(
    trained: Micro, run: Run, refs: list[TrackRef], tmp_path: Path
):
    job = job_of(trained, run, refs, tmp_path / "runs", WORDS, 1)
    unseen = replace(job, parts=((("nobody",), ("nobody",)),))  # a KeyError: nothing that settings can do
    for _ in range(2):
        with pytest.raises(ValueError, match=r"no trial has a score: .*nobody"):
            search(unseen)


def test_a_trial_that_the_cluster_has_no_room_for_is_refused(
    trained: Micro, run: Run, refs: list[TrackRef], tmp_path: Path
):
    large = replace(run, workers=Workers(num_workers=3))
    with pytest.raises(ValueError, match=r"--workers asks for 1 CPUs.*no node has room.*3 x --workers"):
        search(job_of(trained, large, refs, tmp_path / "runs", WORDS))


def test_folds_hold_every_training_video_out_once(trained: Micro, run: Run, refs: list[TrackRef], tmp_path: Path):
    both = [replace(ref, split="train") for ref in refs]
    three = [*both, replace(refs[1], name="again", split="development")]
    space = check(parse(WORDS[:1]), run)
    job = prepare(run, three, Store(trained.places.store), str(tmp_path), SearchOptions("folds", space, 2, folds=2))
    assert sorted(job.parts) == [(("video01",), ("video02",)), (("video02",), ("video01",))]
    assert job.objective == "mean CCC on 2 folds of training videos, the mean of their best epochs"
    trials = search(job)
    assert all(trial.lowest <= trial.score <= trial.highest and trial.epochs <= 2 for trial in trials)
    assert trials[0].lowest < trials[0].highest


def command(micro: Micro, runs: Path, trials: int, workers: int, epochs: int) -> list[str]:
    script = ROOT / "tests" / "pipeline" / "tune_micro.py"
    numbers = map(str, (trials, workers, epochs))
    return [sys.executable, str(script), str(micro.root), micro.places.store, str(runs), *numbers]


def ended(runs: Path) -> dict[str, str]:
    """Last report of every trial that Ray Tune knows to be over."""
    found = {}
    for state in sorted(runs.glob("tune/killed/experiment_state-*.json"))[-1:]:
        try:
            told = json.loads(state.read_text())["trial_data"]
        except json.JSONDecodeError:  # it is being written, in place
            continue
        for text, _ in told:
            trial = json.loads(text)
            if trial["status"] == "TERMINATED":
                found[trial["trial_id"]] = trial["experiment_tag"]
    return found


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_and_runs_no_trial_twice(trained: Micro, local_ray: str, tmp_path: Path):
    environment = {**os.environ, "RAY_ADDRESS": local_ray, "PYTHONPATH": str(ROOT), "TUNE_GLOBAL_CHECKPOINT_S": "1"}
    driver = subprocess.Popen(command(trained, tmp_path, NUM_KILLED, 0, 200), env=environment)
    wait_until(lambda: len(ended(tmp_path)) >= 2, driver)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = ended(tmp_path)
    assert 2 <= len(before) < NUM_KILLED
    done = subprocess.run(
        command(trained, tmp_path, NUM_KILLED, 0, 200), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = list(csv.DictReader((tmp_path / "tune" / "killed" / "trials.csv").open()))
    assert sorted(row["trial"] for row in rows) == [f"{number:03d}" for number in range(1, NUM_KILLED + 1)]
    assert "tune: goes on with" in done.stdout and all(row["status"] != "failed" for row in rows)
    assert before.items() <= ended(tmp_path).items()
    for row in rows:  # a trial that went on reports its first epochs again, and trains none twice
        [progress] = (tmp_path / "tune" / "killed").glob(f"{row['trial']}-*/progress.csv")
        last = list(csv.DictReader(progress.open()))[-1]
        assert int(last["epochs"]) == int(last["training_iteration"]) == int(row["epochs"])


@pytest.mark.slow
def test_trials_may_be_ray_train_runs_of_two_workers(trained: Micro, tmp_path: Path):
    environment = {**os.environ, "RAY_ADDRESS": "local", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command(trained, tmp_path, 2, 2, 3),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = list(csv.DictReader((tmp_path / "tune" / "killed" / "trials.csv").open()))
    assert len(rows) == 2 and all(row["status"] in ("ended", "stopped") and float(row["mean"]) > -1 for row in rows)
