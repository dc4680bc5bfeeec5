"""The micro corpus through training, prediction and scoring, in place and by the jobs' own command lines."""

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from _pytest.capture import CaptureFixture

from affect import files, schema
from affect.corpus import affwild2
from affect.pipeline import plan
from affect.pipeline.assemble import TrackRef, assemble, load_track, make_track, to_tables
from affect.pipeline.evaluate import read_predictions, score_systems
from affect.pipeline.extract import extract
from affect.pipeline.predict import load_models, predict
from affect.pipeline.store import Store
from affect.pipeline.train import SYSTEMS, Model, train
from affect.submission import fill, read_template, tracks_of
from tests.conftest import Micro


@pytest.fixture(scope="session")
def refs(extracted: Micro) -> list[TrackRef]:
    """The micro corpus' assembled tracks."""
    store = Store(extracted.places.store)
    videos = plan.probe_videos(extracted.places.videos, store, {})
    return assemble(extracted.run, videos, affwild2.read_splits(extracted.places.labels), store)


@pytest.fixture(scope="session")
def models(extracted: Micro, refs: list[TrackRef]) -> list[Model]:
    """All five systems, two epochs each."""
    return train(extracted.run, refs, Store(extracted.places.store), extracted.places.runs)


def test_a_track_survives_its_tables(extracted: Micro, refs: list[TrackRef]):
    store = Store(extracted.places.store)
    track = load_track(store, refs[0])
    frames, segments = to_tables(track)
    assert frames.equals(store.get(f"{refs[0].key}/frames.parquet").table.replace_schema_metadata())
    assert segments.equals(store.get(f"{refs[0].key}/segments.parquet").table.replace_schema_metadata())
    assert frames.schema.equals(schema.TRACK_FRAMES) and segments.schema.equals(schema.TRACK_SEGMENTS)
    labels = affwild2.read_splits(extracted.places.labels)["train"][refs[0].name]
    assert np.isnan(labels).any() and track.gold == pytest.approx(labels, abs=1e-6, nan_ok=True)
    assert track.face_valid.all() and np.isfinite(track.face_embedding).all() and track.segments.behavior_valid.all()


def test_labels_decide_a_tracks_length(extracted: Micro):
    store = Store(extracted.places.store)
    from affect.pipeline.assemble import load_features

    [video, *_] = plan.probe_videos(extracted.places.videos, store, {})
    features = load_features(video, extracted.run, plan.addresses(extracted.run), store)
    for rows in (48, 52):  # surplus frames are ignored, missing last ones are filled
        track = make_track("x", "main", video, features, np.zeros((rows, 2)), extracted.run)
        assert track.num_frames == rows == len(track.face_embedding)
        assert track.face_valid.sum() == min(rows, 50) and track.segments.ranges.max() <= rows
    with pytest.raises(ValueError, match="90 label rows, but .* has 50 frames"):
        make_track("x", "main", video, features, np.zeros((90, 2)), extracted.run)


def test_training_again_does_nothing(
    extracted: Micro, refs: list[TrackRef], models: list[Model], capsys: CaptureFixture
):
    assert [m.system for m in models] == list(SYSTEMS)
    again = train(extracted.run, refs, Store(extracted.places.store), extracted.places.runs)
    said = capsys.readouterr().out
    assert said.count("there already") == 5 and [m.address for m in again] == [m.address for m in models]


def test_a_fusion_without_its_modalities_is_an_error(extracted: Micro, refs: list[TrackRef]):
    with pytest.raises(ValueError, match="raav reads the embeddings of face, behavior, audio"):
        train(extracted.run, refs, Store(extracted.places.store), extracted.places.runs, ("raav",))


def test_new_people_are_predicted_scored_and_submitted(extracted: Micro, models: list[Model], tmp_path: Path):
    run, places = extracted.run, extracted.places
    store, out = Store(places.store), str(tmp_path / "out")
    template = read_template(Path(places.template).read_text(), places.template)
    summary = extract(run, places.new_videos, store)
    outcomes = predict(run, summary.videos, load_models(run, places.runs), store, out, tracks=tracks_of(template))
    assert [(row["status"], row["people"], row["frames"]) for row in outcomes] == [("ok", 1, 50)]

    table = pq.read_table(tmp_path / "out" / "video03.parquet")
    assert table.schema.remove_metadata().equals(schema.PREDICTIONS) and table["frame"].to_pylist() == list(range(50))
    for name in ("valence", "arousal"):
        assert np.abs(table[name].to_numpy()).max() <= 1
    rows = list(csv.DictReader((tmp_path / "out" / "video03.csv").open()))
    assert len(rows) == 50 and float(rows[7]["valence"]) == pytest.approx(table["valence"][7].as_py(), abs=1e-6)

    predictions = read_predictions(out)
    scores = score_systems(predictions, affwild2.read_folder(places.truth))
    assert list(scores) == list(SYSTEMS) and all(s.num_frames == 50 for s in scores.values())
    lines = fill(template, {name: p.main for name, p in predictions.items()}).splitlines()
    assert len(lines) == 51 and [line.split(",")[0] for line in lines[1:]] == [row.location for row in template]


def test_models_of_other_settings_are_refused(extracted: Micro, models: list[Model]):
    from dataclasses import replace

    other = replace(extracted.run, raav=replace(extracted.run.raav, hidden=128))
    with pytest.raises(ValueError, match="trained with other raav settings"):
        load_models(other, extracted.places.runs)
    with pytest.raises(ValueError, match="no trained face model; run jobs/train.py"):
        load_models(extracted.run, files.join(extracted.places.runs, "nowhere"))
