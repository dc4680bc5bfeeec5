"""Training on the micro corpus: what recipes share, folds, killed trainings, and what is said when something lacks."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from _pytest.capture import CaptureFixture
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from affect.corpus import affwild2
from affect.corpus.track import Track
from affect.corpus.videos import find
from affect.evaluation.evaluate import overlap_with_training
from affect.learning.checkpoint import decode
from affect.learning.folds import fold_videos
from affect.pipeline.assemble import assemble
from affect.pipeline.evaluate import score_runs
from affect.pipeline.probe import probe_videos
from affect.pipeline.train import train
from affect.settings.run import Run
from affect.storage import files
from affect.storage.columns import matrix
from affect.storage.store import Store
from affect.tracks.tables import TrackRef, load_track
from affect.trained.embedded import embedded_key, with_embeddings
from affect.trained.models import all_models, load_model
from affect.trained.runs import read_run
from affect.trained.training import Training
from tests.conftest import Micro
from tests.jobs import LIMIT_S, wait_until

pytestmark = pytest.mark.usefixtures("pools_here")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def refs(trained: Micro) -> list[TrackRef]:
    """The micro corpus' assembled tracks."""
    return assembled(trained, trained.run)


def assembled(micro: Micro, run: Run) -> list[TrackRef]:
    store = Store(micro.places.store)
    videos = probe_videos(find(micro.places.videos), store, {})
    return assemble(run, videos, affwild2.read_splits(micro.places.labels), store)


def test_recipes_share_tracks_features_and_models(trained: Micro, refs: list[TrackRef], capsys: CaptureFixture[str]):
    """A chain of recipes does each thing once: face alone, face and audio fused, and all three are already there."""
    demo, runs = trained.run, trained.places.runs
    before = Store(trained.places.store).keys("tracks")
    two = replace(demo.dcmmoe, modalities=("face", "audio"))
    alone = replace(demo, name="face", systems=("face",))
    pair = replace(demo, name="dcmmoe_face_audio", systems=("face", "audio", "dcmmoe"), dcmmoe=two)
    for run, more in ((alone, set()), (pair, {"waveforms"})):
        own = assembled(trained, run)
        assert [set(ref.keys) for ref in own] == [{"frames", "segments", *run.extracted} | more] * 2
        assert all(ref.keys.items() <= all_of.keys.items() for ref, all_of in zip(own, refs, strict=True))
        models = train(run, own, Store(trained.places.store), runs)
    said = capsys.readouterr().out
    assert said.count("there already") == 3 and "train dcmmoe: best of" in said
    assert Store(trained.places.store).keys("tracks") == before
    assert models[-1].title == "dcmmoe (face + audio)" and set(models[-1].upstream) == {"face", "audio"}
    assert read_run(runs, "face").keys() == {"face"} and read_run(runs, pair.name).keys() == set(pair.systems)


def test_folds_keep_videos_together_and_are_about_equal():
    sizes = {"a": 100, "b": 90, "c": 60, "d": 50, "e": 40, "f": 10}
    parts = fold_videos(sizes, 3)
    assert sorted(video for part in parts for video in part) == sorted(sizes)
    frames = [sum(sizes[video] for video in part) for part in parts]
    assert max(frames) - min(frames) <= 20
    assert sorted(map(len, fold_videos(sizes, 6))) == [1] * 6  # a fold may hold one video
    for folds in (1, 7):
        with pytest.raises(ValueError, match=f"--folds {folds}: there are 6 training videos, give 2 to 6"):
            fold_videos(sizes, folds)


@pytest.fixture(scope="module")
def three(trained: Micro, predicted: str, refs: list[TrackRef]) -> list[TrackRef]:
    """Two tracks to learn from and one to select on."""
    store = Store(trained.places.store)
    videos = probe_videos(find(trained.places.new_videos), store, {})
    labels = affwild2.read_folder(trained.places.truth)
    return [
        *(replace(ref, split="train") for ref in refs),
        *assemble(trained.run, videos, {"development": labels}, store),
    ]


def test_in_folds_every_frame_is_embedded_by_a_model_that_never_saw_its_video(
    trained: Micro, three: list[TrackRef], tmp_path: Path, capsys: CaptureFixture[str]
):
    run = replace(trained.run, systems=("face", "behavior", "audio", "raav"))
    store, runs = Store(trained.places.store), str(tmp_path / "runs")
    in_sample = {model.system: model for model in train(run, three, store, runs)}
    folded = {model.system: model for model in train(run, three, store, runs, folds=2)}
    assert folded["raav"].address != in_sample["raav"].address and folded["raav"].folds == 2
    assert folded["raav"].upstream == in_sample["raav"].upstream  # new people are embedded by the models of all
    assert folded["face"].address == in_sample["face"].address
    held_out = {}
    for uri in (Path(runs) / "face").iterdir():
        if uri.name != folded["face"].address:
            names = {
                ref.name for ref in three if embedded_key(uri.name, "face", ref) in store.keys(f"embedded/{uri.name}")
            }
            held_out[uri.name] = names
    assert sorted(map(sorted, held_out.values())) == [["video01"], ["video02"]]
    for model, [name] in held_out.items():
        [ref] = [ref for ref in three if ref.name == name]
        ours, theirs = (
            matrix(store.get(embedded_key(mark, "face", ref)).table["embedding"])
            for mark in (model, folded["face"].address)
        )
        assert np.abs(ours - theirs).max() > 1e-3
    assert read_run(runs, "demo").keys() == read_run(runs, "demo-2folds").keys()
    capsys.readouterr()
    train(run, three, store, runs, folds=2)
    assert capsys.readouterr().out.count("there already") == 3 * 3 + 1
    titles = [model.title for model in all_models(runs)]
    assert titles == ["face", "behavior", "audio", "raav", "raav, 2 folds"]
    with pytest.raises(ValueError, match="--folds 3: there are 2 training videos"):
        train(run, three, store, runs, folds=3)


def test_all_models_are_judged_with_and_without_each_modality_once(
    trained: Micro, predicted: str, capsys: CaptureFixture[str]
):
    places = trained.places
    where = (places.new_videos, places.truth, Store(places.store), places.runs, {})
    judged = score_runs(trained.run, *where)
    titles = [answers.title for answers in judged.answers]
    assert [t for t in titles if "+" not in t] == ["face", "behavior", "audio", "dcmmoe", "raav"]
    assert "5" in capsys.readouterr().out or len(titles) == 6
    for answers in judged.answers:
        assert np.isfinite(answers.tracks["video03"]).all()
        fusion = answers.title.startswith(("dcmmoe", "raav"))
        assert answers.without.keys() == (set(answers.modalities) if fusion else set())
        for removed in answers.without.values():
            assert np.isfinite(removed["video03"]).all()
    score_runs(trained.run, *where)
    assert "evaluate:" not in capsys.readouterr().out  # what was said before is read


def test_tracks_that_models_were_trained_or_selected_on_are_said_to_be_so(trained: Micro):
    places, store = trained.places, Store(trained.places.store)
    for folder, split in (("Train_Set", "train"), ("Validation_Set", "development"), ("", "development")):
        labels = str(Path(places.labels) / folder)
        assert score_runs(trained.run, places.videos, labels, store, places.runs, {}).split == split
    unseen = score_runs(trained.run, places.new_videos, places.truth, store, places.runs, {})
    assert unseen.split == "held_out" and "which nothing was trained or selected on" in unseen.title


def test_a_person_that_was_trained_on_is_known_under_another_name_annotation_and_side(
    trained: Micro, refs: list[TrackRef]
):
    models = all_models(trained.places.runs)
    [learned] = [ref for ref in refs if ref.split == "train"]
    other = replace(learned, name="other", keys={part: f"elsewhere/{part}.arrow" for part in learned.keys})
    assert overlap_with_training(models, [other])[0] == "train"
    assert overlap_with_training(models, [replace(other, person="left")])[0] == "train"  # main may be left
    assert overlap_with_training(models, [replace(other, content="0" * 12)])[0] == "held_out"
    left = [replace(m, learned_from=[s.replace("main", "left") for s in m.learned_from]) for m in models]
    assert overlap_with_training(left, [other])[0] == "train"
    assert overlap_with_training(left, [replace(other, person="right")])[0] == "held_out"
    earlier = [replace(m, learned_from=[learned.keys["frames"]]) for m in models]
    assert overlap_with_training(earlier, [learned])[0] == "train"


def test_models_of_one_name_are_told_apart(trained: Micro, refs: list[TrackRef], predicted: str, tmp_path: Path):
    runs, store, places = str(tmp_path / "runs"), Store(trained.places.store), trained.places
    for name, seed in (("one", 0), ("two", 1)):
        transformer = trained.run.face_transformer
        face = replace(transformer, fit=replace(transformer.fit, seed=seed))
        train(replace(trained.run, name=name, systems=("face",), face_transformer=face), refs, store, runs)
    judged = score_runs(trained.run, places.new_videos, places.truth, store, runs, {})
    titles = [answers.title for answers in judged.answers]
    assert len(set(titles)) == 2 and all(title.startswith("face, ") for title in titles)


def test_a_touched_video_is_still_the_same_track(trained: Micro, refs: list[TrackRef], tmp_path: Path):
    store = Store(trained.places.store)
    videos = probe_videos(find(trained.places.videos), store, {})
    touched = [replace(video, probe_key="videos/another-time.parquet") for video in videos]
    assert assemble(trained.run, touched, affwild2.read_splits(trained.places.labels), store) == refs


def test_how_clips_ended_is_read_once_and_known_ever_after(trained: Micro, monkeypatch: pytest.MonkeyPatch):
    refs = assembled(trained, trained.run)
    monkeypatch.setattr(Store, "footer", lambda *_: pytest.fail("an object is read"))
    assert assembled(trained, trained.run) == refs


@pytest.mark.parametrize("content", [b'{"system": "face"', b"[]", b'{"nonsense": 1}'])
def test_a_damaged_description_of_a_model_is_named(content: bytes, tmp_path: Path):
    folder = tmp_path / "face" / "0123"
    folder.mkdir(parents=True)
    (folder / "model.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"face/0123/model.json describes no model of this version, delete it"):
        load_model(str(folder))


def test_an_earlier_raav_whose_positions_counted_frames_is_refused(trained: Micro, tmp_path: Path):
    [raav] = [model for model in all_models(trained.places.runs) if model.system == "raav"]
    card = json.loads((Path(raav.uri) / "model.json").read_text())
    folder = tmp_path / "raav" / raav.address
    folder.mkdir(parents=True)
    for positions in (False, True):
        card["settings"]["positions"] = positions
        earlier = {name: value for name, value in card.items() if name not in ("version", "backbone")}
        (folder / "model.json").write_text(json.dumps(earlier))
        if not positions:
            assert load_model(str(folder)).version == 1
    with pytest.raises(ValueError, match="positions count frames and blocks, now they count seconds"):
        load_model(str(folder))


def test_a_description_in_another_models_folder_is_refused_and_other_json_is_left_alone(trained: Micro, tmp_path: Path):
    known = read_run(trained.places.runs, "demo")
    for system in ("face", "audio"):
        shutil.copytree(Path(trained.places.runs) / system / known[system], tmp_path / system / known[system])
    description = (tmp_path / "audio" / known["audio"] / "model.json").read_bytes()
    (tmp_path / "face" / known["face"] / "model.json").write_bytes(description)
    with pytest.raises(ValueError, match=r"describes audio/.*: it was put into the wrong folder"):
        load_model(str(tmp_path / "face" / known["face"]))
    (tmp_path / "notes.json").write_text("{}")
    assert read_run(str(tmp_path), "notes") == {}
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"broken\.json is no list of models"):
        all_models(str(tmp_path))


def test_folds_without_a_fusion_are_refused(trained: Micro, refs: list[TrackRef], tmp_path: Path):
    with pytest.raises(ValueError, match="recipe face has no fusion"):
        train(replace(trained.run, name="face", systems=("face",)), refs, Store("x"), str(tmp_path), folds=2)


def test_what_lacks_is_said_with_the_job_that_makes_it(trained: Micro, refs: list[TrackRef], tmp_path: Path):
    store = Store(trained.places.store)
    track = load_track(store, refs[0])
    with pytest.raises(ValueError, match=r"no behavior embeddings of model nothing; jobs/train.py with behavior"):
        with_embeddings(track, refs[0], store, {"behavior": "nothing"})
    only_training = [replace(ref, split="train") for ref in refs]
    with pytest.raises(ValueError, match="no usable track in the development split"):
        train(trained.run, only_training, store, str(tmp_path))
    with pytest.raises(ValueError, match=r"no trained model; run jobs/train.py first"):
        all_models(str(tmp_path / "nowhere"))


def test_weights_of_another_model_are_said_with_both_shapes(trained: Micro, tmp_path: Path):
    known = read_run(trained.places.runs, "demo")
    model = load_model(files.join(trained.places.runs, "raav", known["raav"]))
    other = replace(model, settings={**model.settings, "feedforward": 64})
    with pytest.raises(ValueError, match=r"tensor layers.0.linear1.weight is \[128, 64\], \[64, 64\] is wanted"):
        other.network(torch.device("cpu"))
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ValueError, match="no safetensors"):
        replace(model, uri=str(tmp_path)).network(torch.device("cpu"))


def test_tracks_whose_embeddings_differ_in_width_are_refused(
    trained: Micro, refs: list[TrackRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def load(training: Training, ref: TrackRef) -> Track:
        track = load_track(training.store, ref)
        width = 3 if ref.name == "video01" else 4
        return replace(
            track, parts={"face": replace(track.parts["face"], embedding=np.zeros((50, width), dtype=np.float32))}
        )

    monkeypatch.setattr("affect.trained.inputs._load", load)
    run = replace(trained.run, systems=("face",))
    with pytest.raises(ValueError, match="face is not equally wide in all tracks"):
        train(run, refs, Store(trained.places.store), str(tmp_path))


def test_curves_are_written_beside_the_model(trained: Micro):
    mark = read_run(trained.places.runs, "demo")["dcmmoe"]
    folder = Path(trained.places.runs) / "dcmmoe" / mark
    assert {p.name for p in folder.iterdir()} - {"judged"} == {
        "model.safetensors",
        "model.json",
        "history.json",
        "tensorboard",
    }
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert "development_ccc/mean" in events.Tags()["scalars"]
    history = json.loads((folder / "history.json").read_text())
    assert [e.value for e in events.Scalars("loss/epoch")] == pytest.approx([row["loss"] for row in history], abs=1e-6)


def _command(micro: Micro, store: str, runs: Path, workers: int, system: str = "face") -> list[str]:
    script = ROOT / "tests" / "pipeline" / "train_micro.py"
    return [sys.executable, str(script), str(micro.root), store, str(runs), str(workers), system]


def _model(runs: Path) -> tuple[bytes, list[dict[str, float]]]:
    [folder] = [p for p in runs.glob("*/*") if p.is_dir() and not p.name.endswith(".ray")]
    return (folder / "model.safetensors").read_bytes(), json.loads((folder / "history.json").read_text())


def _wait_for_epochs(driver: subprocess.Popen[bytes], runs: Path, number: int) -> None:
    """Waits until a checkpoint says that epochs are done."""

    def done() -> bool:
        found = runs.glob("*/*/checkpoint.safetensors")
        return any(len(decode(path.read_bytes())[1]["history"]) >= number for path in found)

    wait_until(done, driver)


@pytest.mark.slow
def test_a_driver_killed_while_it_trains_ends_where_it_would_have(trained: Micro, local_ray: str, tmp_path: Path):
    """kill -9 at two random steps, the same command again: the same weights, bit by bit, and the same curve."""
    rng = np.random.default_rng()
    environment = {**os.environ, "RAY_ADDRESS": local_ray, "PYTHONPATH": str(ROOT)}
    store = trained.places.store
    whole, killed = (_command(trained, store, tmp_path / name, 0, "face") for name in ("whole", "killed"))
    assert subprocess.run(whole, env=environment, check=False).returncode == 0
    epochs = len(_model(tmp_path / "whole")[1])
    for share in sorted(rng.uniform(0.1, 0.8, 2)):
        driver = subprocess.Popen(killed, env=environment)
        _wait_for_epochs(driver, tmp_path / "killed", int(share * epochs))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        assert not list((tmp_path / "killed").glob("*/*/model.json")), "the kill came too late to mean anything"
    assert subprocess.run(killed, env=environment, check=False).returncode == 0
    assert _model(tmp_path / "killed") == _model(tmp_path / "whole")


@pytest.mark.slow
def test_a_ray_train_worker_that_is_killed_is_replaced_and_ends_where_it_would_have(
    trained: Micro, local_ray: str, tmp_path: Path
):
    """Audio's workers are fed by Ray Data, in the middle of whose stream the kill comes."""
    environment = {**os.environ, "RAY_ADDRESS": local_ray, "PYTHONPATH": str(ROOT)}
    store = str(tmp_path / "store")
    whole, killed = (_command(trained, store, tmp_path / name, 2, "audio") for name in ("whole", "killed"))
    assert subprocess.run(whole, env=environment, check=False).returncode == 0
    driver = subprocess.Popen(killed, env=environment)
    _wait_for_epochs(driver, tmp_path / "killed", 2)
    victim = int(np.random.default_rng().choice(_train_workers()))
    os.kill(victim, signal.SIGKILL)
    assert driver.wait(timeout=LIMIT_S) == 0
    assert _model(tmp_path / "killed") == _model(tmp_path / "whole")


def _train_workers() -> list[int]:
    """Processes of Ray Train's workers."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                title = (folder / "cmdline").read_bytes()
            except OSError:
                continue  # it ended meanwhile
            if title.startswith(b"ray::") and b"TrainWorker" in title:
                found.append(int(folder.name))
    assert len(found) == 2
    return found
