"""The recipe of public encoders on files of their layout: videos to a report, calibration, and what is missing offline.

Encoders' own numbers are compared with their networks in ``tests/face/test_onnx_encoder.py`` and
``tests/audio/test_rater.py``; here predictions are compared with a loop over the stored numbers.
"""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from affect import weights
from affect.corpus import affwild2
from affect.face.onnx_encoder import NETWORKS
from affect.modalities import recipes
from affect.pipeline.assemble import assemble
from affect.pipeline.extract import extract
from affect.pipeline.train import train
from affect.plan.addresses import feature_addresses
from affect.settings.run import Run
from affect.storage import schema
from affect.storage.columns import matrix, nullable
from affect.storage.store import Store
from affect.tracks.features import load_features
from affect.tracks.tables import load_track
from affect.trained.models import load_models
from affect.weights import WeightsError
from jobs.predict import Predict
from jobs.predict import work as predict_job
from tests.conftest import Micro, pools
from tests.public_weights import export, face_network, make_speech_emotion


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The recipe with random networks of the published layout."""
    folder = tmp_path_factory.mktemp("public")
    network = export(face_network(), folder / "net.onnx")
    network.with_suffix(".json").write_text(json.dumps(dataclasses.asdict(NETWORKS["hsemotion"])))
    make_speech_emotion(folder / "ser")
    run = recipes()["public"][0]()
    return replace(
        run,
        face=replace(run.face, weights=str(network), max_actors=1),
        audio=replace(run.audio, rater=str(folder / "ser"), rater_revision="", max_actors=1),
        linear=replace(run.linear, smooth_s=(0.5, 0.0, 1.0), folds=3),
    )


@pytest.fixture(scope="module")
def store(public: Run, micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Store with the features of all videos of the micro corpus."""
    store = str(tmp_path_factory.mktemp("store"))
    with pools(in_process=True):
        for places in (micro.places.videos, micro.places.new_videos):
            assert extract(public, places, Store(store)).exit_code == 0
    return store


@pytest.mark.usefixtures("pools_here")
def test_without_training_videos_become_a_report_of_weighted_and_smoothed_ratings(
    public: Run, store: str, micro: Micro, tmp_path: Path
):
    out, runs = tmp_path / "out", str(tmp_path / "runs")
    places = {"new_videos": (micro.places.new_videos,), "out": str(out), "runs": runs, "store": store}
    job = Predict(run=public, **places, export="elan")
    assert predict_job(job) == 0
    assert (out / "report" / "index.html").exists() and list(out.glob("*.eaf"))
    [path] = out.glob("*.parquet")
    found = pq.read_table(path)
    assert json.loads((out / "run.json").read_text())["made_with"]["linear model"] == "untrained"
    videos = extract(public, micro.places.new_videos, Store(store)).videos
    features = load_features(videos[0], public, feature_addresses(public), Store(store))
    expected = by_hand(public, features, found["audio_reason"].to_pylist())
    ours = np.stack([found[name].to_numpy() for name in ("valence", "arousal")], axis=1)
    assert np.std(ours, axis=0).min() > 1e-4  # random networks tell pictures apart
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def by_hand(run: Run, features, audio_reason: list[str]) -> np.ndarray:  # type: ignore[no-untyped-def] -- Features
    """Weighted mean of the ratings that are there, then the mean of the frames around, one frame after the other."""
    time_s, settings = features.probe.time_s, run.linear
    num = len(time_s)
    face, audio = np.full((num, 2), np.nan), np.full((num, 2), np.nan)
    [person] = features.persons
    rows = features.tables["face"].take(person.rows)
    face[rows["frame"].to_numpy()] = nullable(rows, "valence", "arousal")
    sums, counts = np.zeros((num, 2)), np.zeros(num)
    kept = np.array([reason == "" for reason in audio_reason])
    table = features.tables["audio"]
    for segment, rating in zip(table["segment"].to_pylist(), matrix(table[schema.RATING.name], 3), strict=True):
        first, end = segment * run.grid.hop_s, segment * run.grid.hop_s + run.grid.segment_s
        inside = (time_s >= first - 1e-6) & (time_s < end - 1e-6)
        if kept[inside].all():
            sums[inside] += rating[:2]
            counts[inside] += 1
    audio[counts > 0] = sums[counts > 0] / counts[counts > 0, None]
    result = np.full((num, 2), np.nan)
    half = round((settings.smooth_s[0] * num / features.probe.clock.duration_s - 1) / 2)
    for c, priors in enumerate((settings.valence_priors, settings.arousal_priors)):
        value = np.full(num, np.nan)
        for t in range(num):
            there = [(priors[m], r[t, c]) for m, r in (("face", face), ("audio", audio)) if not np.isnan(r[t, c])]
            if there:
                value[t] = sum(p * r for p, r in there) / sum(p for p, _ in there)
        for t in range(num):
            result[t, c] = np.nanmean(value[max(0, t - half) : t + half + 1])
    return result.clip(-1, 1)


@pytest.mark.usefixtures("pools_here")
def test_labels_calibrate_it_and_prediction_uses_the_map(
    public: Run, store: str, micro: Micro, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    runs = str(tmp_path / "runs")
    videos = extract(public, micro.places.videos, Store(store)).videos
    refs = assemble(public, videos, affwild2.read_splits(micro.places.labels), Store(store))
    [model] = train(public, refs, Store(store), runs)
    assert "nothing selected on it" in capsys.readouterr().out and model.best["mean"] > -1
    assert load_track(Store(store), refs[0]).ratings["face"].shape[1] == 10
    loaded = load_models(public, runs)["linear"]
    assert loaded.address == model.address and not loaded.untrained and loaded.title == "linear"
    before, after = tmp_path / "before", tmp_path / "after"
    for out, given in ((before, str(tmp_path / "none")), (after, runs)):
        places = {"new_videos": (micro.places.new_videos,), "out": str(out), "runs": given, "store": store}
        assert predict_job(Predict(run=public, **places, report=False)) == 0
    first, second = (pq.read_table(next(out.glob("*.parquet")))["valence"].to_numpy() for out in (before, after))
    assert np.abs(first - second).max() > 1e-3
    assert (tmp_path / "runs" / "public.html").exists()


@pytest.mark.usefixtures("pools_here")
def test_offline_one_line_says_what_is_missing_and_both_commands_that_fetch_it(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = recipes()["public"][0]()
    run = replace(run, face=replace(run.face, landmarker=str(weights.file(run.face.landmarker))))
    monkeypatch.setenv("AFFECT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WeightsError) as caught:
        extract(run, micro.places.videos, Store(str(tmp_path / "store")))
    message = str(caught.value)
    assert "\n" not in message and "enet_b0_8_va_mtl.onnx" in message and "curl" in message
    assert "3loi/SER-Odyssey" in message and "hf download" in message
