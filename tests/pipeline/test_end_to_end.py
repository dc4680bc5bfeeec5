"""The micro corpus through training, prediction and scoring, in place and by the jobs' own command lines."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from _pytest.capture import CaptureFixture

from affect import concordance
from affect.corpus import affwild2
from affect.corpus.videos import Shard, find
from affect.evaluation.evaluate import score_predictions
from affect.evaluation.submission import fill, read_template
from affect.modalities import MODALITIES, SYSTEMS
from affect.pipeline.assemble import assemble
from affect.pipeline.evaluate import score_runs
from affect.pipeline.extract import extract
from affect.pipeline.predict import predict
from affect.pipeline.probe import probe_videos
from affect.pipeline.train import train
from affect.plan.addresses import feature_addresses
from affect.plan.clips import keys_of
from affect.settings.labels import Labels
from affect.settings.models import Linear
from affect.storage import files, schema
from affect.storage.columns import matrix
from affect.storage.extracted import Extracted
from affect.storage.store import Store
from affect.tracks.assembly import make_track
from affect.tracks.features import load_features
from affect.tracks.tables import TrackRef, load_track, to_tables
from affect.trained.models import load_models
from affect.trained.predictions import predictions_schema
from jobs.predict import Predict
from jobs.predict import work as predict_job
from tests.conftest import Micro

pytestmark = pytest.mark.usefixtures("pools_here")


@pytest.fixture(scope="session")
def refs(trained: Micro) -> list[TrackRef]:
    """The micro corpus' assembled tracks."""
    store = Store(trained.places.store)
    videos = probe_videos(find(trained.places.videos), store, {})
    return assemble(trained.run, videos, affwild2.read_splits(trained.places.labels), store)


def test_a_track_survives_its_tables(trained: Micro, refs: list[TrackRef]):
    store = Store(trained.places.store)
    track = load_track(store, refs[0])
    for part, table in to_tables(track).items():
        assert table.equals(store.get(refs[0].keys[part]).table.replace_schema_metadata())
        assert table.schema.equals(schema.TRACK[part])
    labels = affwild2.read_splits(trained.places.labels)["train"][refs[0].name]
    assert np.isnan(labels).any() and track.gold == pytest.approx(labels, abs=1e-6, nan_ok=True)
    assert (
        track.parts["face"].valid.all()
        and np.isfinite(track.parts["face"].embedding).all()
        and track.parts["behavior"].valid.all()
    )


def test_labels_decide_a_tracks_length(trained: Micro):
    store = Store(trained.places.store)
    [video, *_] = probe_videos(find(trained.places.videos), store, {})
    features = load_features(video, trained.run, feature_addresses(trained.run), store)
    for rows in (48, 52):  # surplus frames are ignored, missing last ones are filled
        track = make_track("x", "main", video, features, np.zeros((rows, 2)), trained.run)
        assert track.num_frames == rows == len(track.parts["face"].embedding)
        assert track.parts["face"].valid.sum() == min(rows, 50) and track.segments.ranges.max() <= rows


def test_labels_of_another_length_are_left_out_with_both_numbers(trained: Micro, capsys: CaptureFixture[str]):
    store = Store(trained.places.store)
    videos = probe_videos(find(trained.places.videos), store, {})
    golds = affwild2.read_splits(trained.places.labels)
    [name] = golds["train"]
    golds["train"][name] = golds["train"][name][:10]  # two a second
    refs = assemble(trained.run, videos, golds, store)
    said = capsys.readouterr().out
    assert f"left out: track {name}: 10 label rows, but its video has 50 frames" in said
    assert "are these 2 ratings a second" in said and name not in [ref.name for ref in refs]


def test_hints_override_a_name_and_have_to_lie_on_somebody(trained: Micro, capsys: CaptureFixture[str]):
    store = Store(trained.places.store)
    videos = probe_videos(find(trained.places.videos), store, {})
    features = load_features(videos[0], trained.run, feature_addresses(trained.run), store)
    [person] = features.persons
    x, y = (float(v) for v in (person.box[3, :2] + person.box[3, 2:]) / 2)
    named = make_track("x", "7", videos[0], features, None, trained.run)  # there is no seventh person
    hinted = make_track("x", "7", videos[0], features, None, trained.run, [(3, x, y)])
    assert not named.parts["face"].valid.any() and np.isnan(named.parts["face"].lip_area).all()
    assert hinted.parts["face"].valid.all() and np.isfinite(hinted.parts["face"].lip_area).any()
    labels = affwild2.read_splits(trained.places.labels)
    refs = assemble(trained.run, videos, labels, store, {"video01": [(3, 0.01, 0.01)]})
    assert "track video01: its hints lie on nobody that is seen" in capsys.readouterr().out
    assert [ref.name for ref in refs] == ["video02"]


def test_training_again_does_nothing(trained: Micro, refs: list[TrackRef], capsys: CaptureFixture[str]):
    models = train(trained.run, refs, Store(trained.places.store), trained.places.runs)
    assert [model.system for model in models] == list(trained.run.systems)
    assert capsys.readouterr().out.count("there already") == 5


def test_a_linear_model_is_scored_beside_others_by_a_run_that_has_none(
    trained: Micro, refs: list[TrackRef], tmp_path: Path
):
    """The run's tracks then have the ratings that the model reads, too."""
    store, runs = Store(trained.places.store), str(tmp_path / "runs")
    alone = replace(trained.run, systems=("face",))
    train(alone, refs, store, runs)
    linear = replace(trained.run, name="lin", systems=("linear",), linear=Linear(modalities=("face",)))
    videos = probe_videos(find(trained.places.videos), store, {})
    train(linear, assemble(linear, videos, affwild2.read_splits(trained.places.labels), store), store, runs)
    judged = score_runs(alone, trained.places.videos, trained.places.labels, store, runs, {})
    assert [answers.title for answers in judged.answers] == ["face", "linear (face)"]
    assert all(np.isfinite(values).all() for answers in judged.answers for values in answers.tracks.values())


def test_an_annotated_track_without_predictions_is_an_error(trained: Micro, predicted: str, tmp_path: Path):
    for name in ("video03", "video99"):
        (tmp_path / f"{name}.csv").write_text("time_s,valence,arousal\n0,0,0\n1,1,1\n")
    with pytest.raises(ValueError, match=r"no prediction for track video99 \(1 tracks in all\)"):
        score_predictions(predicted, str(tmp_path), Labels(range="-1..1"))


def test_predictions_are_scored_against_ratings_over_time(trained: Micro, predicted: str, tmp_path: Path):
    """Ratings at the frames' times are the labels of frames; those of every other frame are interpolated."""
    gold = affwild2.read_folder(trained.places.truth)["video03"]
    time_s = pq.read_table(Path(predicted) / "video03.parquet")["time_s"].to_numpy()
    rows = [f"{t},{50 * v + 50},{50 * a + 50}\n" for t, (v, a) in zip(time_s, gold, strict=True)]
    (tmp_path / "video03.csv").write_text("time_s,valence,arousal\n" + "".join(rows))
    judged = score_predictions(predicted, str(tmp_path), Labels(range="0..100"))
    np.testing.assert_allclose(judged.truth.gold["video03"], gold, atol=1e-9)
    (tmp_path / "video03.csv").write_text("time_s,valence,arousal\n" + "".join(rows[::2]))
    coarse = score_predictions(predicted, str(tmp_path), Labels(range="0..100")).truth.gold["video03"]
    known = ~np.isnan(coarse[:, 0])
    assert known.sum() >= 49 and np.abs(coarse[known] - gold[known]).max() < 0.1


def test_a_fusion_without_its_modalities_is_an_error(trained: Micro):
    with pytest.raises(ValueError, match="raav reads the embeddings of behavior, audio: add them to systems"):
        replace(trained.run, systems=("face", "raav"))


def test_new_people_are_predicted_scored_and_submitted(trained: Micro, predicted: str):
    table = pq.read_table(Path(predicted) / "video03.parquet")
    assert table.schema.remove_metadata().equals(predictions_schema()) and table["frame"].to_pylist() == list(range(50))
    for name in ("valence", "arousal"):
        assert np.abs(table[name].to_numpy()).max() <= 1
    rows = list(csv.DictReader((Path(predicted) / "video03.csv").open()))
    assert len(rows) == 50 and float(rows[7]["valence"]) == pytest.approx(table["valence"][7].as_py(), abs=1e-6)
    [outcome] = csv.DictReader((Path(predicted) / "videos.csv").open())
    assert (outcome["status"], outcome["people"], outcome["frames"]) == ("ok", "1", "50")

    judged = score_predictions(predicted, trained.places.truth, Labels())
    assert [answers.title for answers in judged.answers] == list(trained.run.systems)
    for answers in judged.answers:
        assert concordance.merge(judged.truth.moments(answers.tracks)).count == 50
    template = read_template(Path(trained.places.template).read_text(), trained.places.template)
    lines = fill(template, judged.main).splitlines()
    assert len(lines) == 51 and [line.split(",")[0] for line in lines[1:]] == [row.location for row in template]


def test_models_of_other_settings_are_refused(trained: Micro):
    other = replace(trained.run, raav=replace(trained.run.raav, hidden=128))
    with pytest.raises(
        ValueError, match=r"trained with other raav settings than this run has: hidden 64 \(this run: 128\)"
    ):
        load_models(other, trained.places.runs)
    other = replace(trained.run, face=replace(trained.run.face, box_growth=0.2))
    with pytest.raises(ValueError, match="trained on other face features"):
        load_models(other, trained.places.runs)
    with pytest.raises(ValueError, match=r"nowhere has no trained face model of demo: .*--runs"):
        load_models(trained.run, files.join(trained.places.runs, "nowhere"))


@pytest.mark.slow
def test_two_ray_train_workers_learn_what_this_process_learns(trained: Micro, refs: list[TrackRef], tmp_path: Path):
    """Without dropout the numbers of processes and windows of a batch change the speed alone."""
    settings = replace(trained.run.face_transformer, dropout=0.0)
    run = replace(trained.run, face_transformer=settings, systems=("face",))
    store = Store(trained.places.store)
    [alone] = train(run, refs, store, str(tmp_path / "alone"))
    shared_run = replace(run, workers=replace(run.workers, num_workers=2, num_cpus=0.5))
    [shared] = train(shared_run, refs, store, str(tmp_path / "shared"))
    assert shared.address == alone.address
    for name in ("valence", "arousal", "mean"):
        assert shared.best[name] == pytest.approx(alone.best[name], abs=1e-4)


def test_a_person_that_no_modality_sees_has_no_answer_and_a_reason(trained: Micro, refs: list[TrackRef]):
    from affect.corpus.track import Series
    from affect.trained.predictions import prediction_table

    track = load_track(Store(trained.places.store), refs[0])
    unseen = Series(np.zeros((50, 4)), np.zeros((50, 2)), np.zeros(50, dtype=bool))
    track = replace(track, series={"face": unseen, "behavior": unseen, "audio": unseen})
    nothing = np.full((50, 2), np.nan)
    table = prediction_table(
        track, dict.fromkeys(SYSTEMS, nothing), tuple(MODALITIES), nothing, {}, np.full((50, 4), np.nan)
    )
    assert table["valence"].null_count == table["raav_arousal"].null_count == table["face_valence"].null_count == 50
    assert all(
        {MODALITIES[m].no_evidence for m in ("face", "behavior")}
        <= {part.partition(": ")[2] for part in reason.split("; ")}
        for reason in table["reason"].to_pylist()
    )
    assert table["face_left"].null_count == 50


def test_a_clip_that_was_done_again_gives_a_new_track(trained: Micro, refs: list[TrackRef], tmp_path: Path):
    """A track's address follows how its clips ended, since a retried clip is written under the same key."""
    store = Store(str(tmp_path / "store"))
    shutil.copytree(trained.places.store, store.uri)
    videos = probe_videos(find(trained.places.videos), store, {})
    first = keys_of(videos[0], trained.run, feature_addresses(trained.run), "face")[0]
    store.put(first, Extracted(schema.FACE.empty_table(), "failed", "not one frame can be decoded"))
    labels = affwild2.read_splits(trained.places.labels)
    again = {ref.name: ref for ref in assemble(trained.run, videos, labels, store)}
    before = {ref.name: ref for ref in refs}
    changed = {part for part, key in again["video01"].keys.items() if key != before["video01"].keys[part]}
    assert changed == {"face", "audio"} and again["video02"] == before["video02"]  # the mouth is the face's
    assert not load_track(store, again["video01"]).parts["face"].valid[:20].any()


def test_labels_of_a_broken_video_go_to_nobody_else(trained: Micro, capsys: CaptureFixture[str]):
    store = Store(trained.places.store)
    videos = probe_videos(find(trained.places.videos), store, {})
    broken = replace(videos[0], stem="video01_left", head=None, reason="the file is empty")
    labels = affwild2.read_splits(trained.places.labels)
    both = {**labels["train"], "video01_left": labels["train"]["video01"]}
    refs = assemble(trained.run, [*videos, broken], {"train": both}, store)
    assert [(ref.name, ref.person) for ref in refs] == [("video01", "main")]
    assert "track video01_left: its video cannot be used" in capsys.readouterr().out


@pytest.fixture
def new_videos(trained: Micro, tmp_path: Path) -> Predict:
    """Prediction of two videos that show one person, of which ``a_left`` names a person of ``a`` only if alone."""
    (tmp_path / "videos").mkdir()
    for name in ("a", "a_left"):
        shutil.copy(Path(trained.places.new_videos) / "video03.mp4", tmp_path / "videos" / f"{name}.mp4")
    return Predict(
        run=trained.run,
        new_videos=(str(tmp_path / "videos"),),
        out=str(tmp_path / "out"),
        runs=trained.places.runs,
        store=str(tmp_path / "store"),
    )


def test_a_template_that_cannot_be_meant_stops_before_anything_is_extracted(new_videos: Predict, tmp_path: Path):
    template = tmp_path / "template.txt"
    template.write_text("image_location,valence,arousal\nnobody/00001.jpg,,\n")
    job = replace(new_videos, template=str(template))
    with pytest.raises(ValueError, match="track nobody has no video"):
        predict_job(job)
    with pytest.raises(ValueError, match="--people left and --template both say whom to predict"):
        predict_job(replace(job, people="left"))
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_parts_of_a_prediction_write_the_tables_of_the_whole(new_videos: Predict, tmp_path: Path):
    """The parts' tables are those of one job, which then has nothing to predict, but the summary and the report."""
    template = tmp_path / "template.txt"
    template.write_text("image_location,valence,arousal\na/00001.jpg,,\na_left/00001.jpg,,\n")
    assert [Shard(1, 2).holds(f"{name}.mp4") for name in ("a", "a_left")].count(True) == 1  # one in each part
    for name, given in (("everyone", None), ("named", str(template))):
        whole, parts = (replace(new_videos, out=str(tmp_path / name / out), template=given) for out in ("1", "2"))
        for number in (1, 2):
            assert predict_job(replace(parts, shard=f"{number}/2")) == 0
            assert not (Path(parts.out) / "videos.csv").exists() and not (Path(parts.out) / "report").exists()
        tables = {path.name: path.stat().st_mtime_ns for path in Path(parts.out).iterdir()}
        assert set(tables) == {f"{video}.{kind}" for video in ("a", "a_left") for kind in ("csv", "parquet")}
        for job in (whole, parts):
            assert predict_job(job) == 0
        assert {name: (Path(parts.out) / name).stat().st_mtime_ns for name in tables} == tables
        for name in ("a.csv", "a_left.csv", "videos.csv"):
            assert (Path(whole.out) / name).read_bytes() == (Path(parts.out) / name).read_bytes()
        assert (Path(parts.out) / "report" / "videos" / "a_left.html").exists()


def test_a_finished_model_embeds_the_tracks_of_a_new_store(trained: Micro, tmp_path: Path):
    store = Store(str(tmp_path / "store"))
    for part in ("videos", "face", "behavior", "audio"):
        shutil.copytree(Path(trained.places.store) / part, Path(store.uri) / part)
    videos = probe_videos(find(trained.places.videos), store, {})
    refs = assemble(trained.run, videos, affwild2.read_splits(trained.places.labels), store)
    train(trained.run, refs, store, trained.places.runs)
    old = Store(trained.places.store)
    assert store.keys("embedded") <= old.keys("embedded")
    for key in store.keys("embedded"):
        new_values, old_values = store.get(key).table, old.get(key).table
        assert matrix(new_values["embedding"]) == pytest.approx(matrix(old_values["embedding"]), abs=1e-4)
    assert len(store.keys("embedded")) == 8  # two tracks: face, behavior, audio frames and audio blocks


def test_a_run_of_one_modality_is_trained_and_predicts_alone(trained: Micro, refs: list[TrackRef], tmp_path: Path):
    run = replace(trained.run, name="face", systems=("face",))
    store, out = Store(trained.places.store), str(tmp_path / "out")
    train(run, refs, store, trained.places.runs)
    videos = extract(run, trained.places.new_videos, store).videos
    models = load_models(run, trained.places.runs)
    assert list(models) == ["face"]
    [outcome] = predict(run, videos, models, store, out, whom=["video03"])
    assert outcome["status"] == "ok"
    table = pq.read_table(Path(out) / "video03.parquet")
    assert np.array_equal(table["valence"].to_numpy(), np.clip(table["face_valence"].to_numpy(), -1, 1))
    assert table["raav_valence"].null_count == table["audio_arousal"].null_count == 50
    assert [answers.title for answers in score_predictions(out, trained.places.truth, Labels()).answers] == ["face"]


def test_models_of_folds_are_asked_for_by_their_number(trained: Micro):
    with pytest.raises(ValueError, match=r"has no trained face model of demo-7folds: .*train.py demo --folds 7 --runs"):
        load_models(trained.run, trained.places.runs, folds=7)
