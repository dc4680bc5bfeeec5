"""The report of real predictions, what is done again, and what a store and a plan are said to hold."""

import io
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from _pytest.capture import CaptureFixture

import affect
from affect import progress
from affect.console.forecast import Forecast, forecast_training
from affect.console.status import replay, status
from affect.corpus import affwild2, video
from affect.evaluation.evaluate import score_predictions
from affect.pipeline import forecast
from affect.pipeline.extract import extract
from affect.pipeline.predict import predict
from affect.pipeline.report import films, pages
from affect.plan.addresses import feature_addresses
from affect.progress import Meter
from affect.settings.extraction import Pool
from affect.settings.labels import Labels
from affect.storage import files, schema, speed
from affect.storage.store import Store, encode_csv
from affect.trained.models import Model, load_models
from affect.trained.predictions import earlier_outcomes as before
from affect.trained.predictions import predictions_schema
from tests.conftest import Micro

pytestmark = pytest.mark.usefixtures("pools_here")


@pytest.fixture
def models(trained: Micro) -> dict[str, Model]:
    return load_models(trained.run, trained.places.runs)


@pytest.fixture
def again(trained: Micro, models: dict[str, Model], tmp_path: Path) -> Callable[..., list[dict]]:
    """Predict the held-out person into a folder of the test's own."""
    store = Store(trained.places.store)
    videos = extract(trained.run, trained.places.new_videos, store).videos

    def call(**more: object) -> list[dict]:
        return predict(trained.run, videos, models, store, str(tmp_path), **more)

    return call


def written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("video03.*")}


def test_what_was_predicted_from_the_same_is_not_predicted_again(again: Callable[..., list[dict]], tmp_path: Path):
    first = again()
    before = written(tmp_path)
    assert again() == first and written(tmp_path) == before and set(before) == {"video03.csv", "video03.parquet"}
    (tmp_path / "video03.parquet").write_bytes(b"torn")
    assert again() == first
    pq.read_table(tmp_path / "video03.parquet")
    assert again(whom=["video03_left"])[0]["people"] == 1  # other people are another question
    assert pq.read_table(tmp_path / "video03.parquet")["track"][0].as_py() == "video03_left"


def test_trained_models_run_on_the_actors_that_the_run_gives_them(
    trained: Micro, models: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class SeenError(Exception):
        pass

    def noted(rows: object, actor: type, arguments: object, settings: Pool, *_: object) -> None:
        raise SeenError(settings)

    monkeypatch.setattr("affect.pipeline.graph.pool", noted)
    run, store = replace(trained.run, inference=Pool(num_gpus=0.25, max_actors=8)), Store(trained.places.store)
    videos = extract(trained.run, trained.places.new_videos, store).videos
    with pytest.raises(SeenError) as raised:
        predict(run, videos, models, store, str(tmp_path))
    assert raised.value.args == (run.inference,)


def test_predictions_are_scored_on_the_development_set_of_a_corpus(predicted: str, trained: Micro, tmp_path: Path):
    for folder, name in (("Train_Set", "nobody"), ("Validation_Set", "video03")):
        (tmp_path / folder).mkdir()
        shutil.copy(f"{trained.places.truth}/video03.txt", tmp_path / folder / f"{name}.txt")
    assert list(score_predictions(predicted, str(tmp_path), Labels()).truth.gold) == ["video03"]


def test_people_are_chosen_by_their_place(again: Callable[..., list[dict]]):
    assert [again(whom=whom)[0]["people"] for whom in ("all", "main", "left")] == [1, 1, 0]
    assert again(whom="left")[0]["reason"] == "nobody is left"


def test_predictions_say_what_windows_and_modalities_say(predicted: str):
    table = pq.read_table(Path(predicted) / "video03.parquet")
    trust = [table[f"{m}_trust"].to_numpy(zero_copy_only=False) for m in ("face", "behavior")]
    assert np.nanmax(np.abs(sum(trust) - 1)) < 1e-4 and table["audio_trust"].null_count == table.num_rows
    assert all(table[f"{m}_valid"].null_count == 0 for m in ("face", "behavior", "audio"))
    spread = table["valence_spread"].to_numpy(zero_copy_only=False)
    assert np.nanmin(spread) >= 0 and np.isfinite(spread).any()


def test_the_report_has_a_page_a_small_film_and_with_annotations_scores(
    trained: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store, run = Store(trained.places.store), trained.run
    videos = extract(run, trained.places.new_videos, store).videos
    monkeypatch.chdir(tmp_path.parent)  # a relative place is the driver's, whatever a worker's is
    predict(run, videos, load_models(run, trained.places.runs), store, tmp_path.name)
    films(run, videos, store, tmp_path.name, {})
    pages(tmp_path.name)
    report = tmp_path / "report"
    assert {str(p.relative_to(report)) for p in report.rglob("*") if p.is_file()} == {
        "index.html",
        "videos/video03.html",
        "videos/video03.mp4",
    }
    film = report / "videos" / "video03.mp4"
    info = video.probe(str(film), film.name)
    assert len(info.time_s) == 50 and info.height <= 360 and info.width % 2 == info.height % 2 == 0 and info.has_audio
    index, page = (report / "index.html").read_text(), (report / "videos" / "video03.html").read_text()
    assert "Against annotations" not in index and 'src="video03.mp4"' in page and "data:image/jpeg;base64," in page
    before = film.stat().st_mtime_ns
    films(run, videos, store, str(tmp_path), {})
    assert film.stat().st_mtime_ns == before  # a film that is there is not made again
    judged = score_predictions(str(tmp_path), trained.places.truth, Labels())
    pages(str(tmp_path), judged)
    index, page = (report / "index.html").read_text(), (report / "videos" / "video03.html").read_text()
    assert "Against annotations" in index and "Annotated against predicted" in index and "CCC valence" in page
    assert "trained" in (Path(trained.places.runs) / "demo.html").read_text().lower()


def test_a_video_that_cannot_be_used_stands_in_the_index_with_its_reason(trained: Micro, tmp_path: Path):
    folder, out = tmp_path / "videos", tmp_path / "out"
    shutil.copytree(trained.places.new_videos, folder)
    (folder / "broken.mp4").write_bytes(b"no video")
    store, run = Store(trained.places.store), trained.run
    videos = extract(run, str(folder), store).videos
    predict(run, videos, load_models(run, trained.places.runs), store, str(out))
    films(run, videos, store, str(out), {})
    pages(str(out))
    index = (out / "report" / "index.html").read_text()
    assert "cannot be opened as a video" in index and index.count('class="status failed"') == 1
    assert not (out / "report" / "videos" / "broken.html").exists()


def test_a_video_that_fails_now_keeps_nothing_of_what_was_said_before(
    trained: Micro, models: dict[str, Model], tmp_path: Path
):
    folder, out = tmp_path / "videos", tmp_path / "out"
    shutil.copytree(trained.places.new_videos, folder)
    (folder / "videos.mp4").write_bytes((folder / "video03.mp4").read_bytes())
    store, run = Store(trained.places.store), trained.run
    for content in (None, b"no video"):
        if content:
            (folder / "video03.mp4").write_bytes(content)
        videos = extract(run, str(folder), store).videos
        rows = {row["video"]: row for row in predict(run, videos, models, store, str(out))}
        films(run, videos, store, str(out), {})
        pages(str(out))
    assert rows["video03"]["status"] == "failed" and "videos.csv says how videos ended" in rows["videos"]["reason"]
    assert {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()} == {
        "run.json",
        "videos.csv",
        "report/index.html",
    }


def test_a_store_says_what_it_has_what_failed_and_what_is_missing(
    extracted: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: CaptureFixture[str]
):
    run, store = extracted.run, Store(str(tmp_path / "store"))
    shutil.copytree(extracted.places.store, tmp_path / "store")
    assert status(run, extracted.places.videos, store, []) == 0
    assert "missing" in capsys.readouterr().out
    clip = next((tmp_path / "store" / "face").rglob("*.parquet"))
    clip.unlink()
    before = {name for name, _, _ in files.walk(store.uri)}
    assert status(run, extracted.places.videos, store, []) == 1
    face = next(line for line in capsys.readouterr().out.splitlines() if "face" in line)
    assert face.split("│")[1:-1][1].strip() == "5" and face.split("│")[1:-1][4].strip() == "1"
    assert {name for name, _, _ in files.walk(store.uri)} == before
    kept = Path(extracted.places.store) / clip.relative_to(store.uri)
    clock = SimpleNamespace(monotonic=time.monotonic, strftime=time.strftime)
    clock.sleep = lambda _: shutil.copy(kept, clip)  # another job writes it meanwhile
    monkeypatch.setattr("affect.console.status.time", clock)
    assert status(run, extracted.places.videos, store, [], watch=True) == 0
    said = capsys.readouterr().out
    assert ": 1 missing" in said and said.count("videos, and clips of each modality") == 2
    monkeypatch.undo()
    videos = tmp_path / "videos"
    shutil.copytree(extracted.places.videos, videos)
    (videos / "broken.mp4").write_bytes(b"no video")
    extract(run, str(videos), store)
    capsys.readouterr()
    assert status(run, str(videos), store, []) == 3
    assert "1 x cannot be opened as a video" in capsys.readouterr().out


def test_one_clip_is_replayed_with_its_traceback_and_nothing_is_written(
    extracted: Micro, tmp_path: Path, capsys: CaptureFixture[str]
):
    run, videos = extracted.run, extracted.places.videos
    assert replay(run, videos, "video01:1", []) == 0
    said = capsys.readouterr().out
    assert "video01 clip 1 face: ok" in said and "clip 0" not in said
    for wanted, reason in (("nobody", "no such video"), ("video01:x", "no such video"), ("video01:9", "clips 0 to 2")):
        with pytest.raises(ValueError, match=reason):
            replay(run, videos, wanted, [])
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    assert replay(run, str(tmp_path), "broken", []) == 3
    assert "MediaError" in capsys.readouterr().err


def test_a_plan_says_what_is_to_do_from_what_was_measured_and_does_nothing(
    extracted: Micro, tmp_path: Path, capsys: CaptureFixture[str]
):
    run, store = extracted.run, Store(str(tmp_path / "store"))
    found, probed = forecast.extraction(run, extracted.places.videos, store, [])
    assert len(probed) == 2 and found.seconds and any("ESTIMATED" in line for line in found.lines)
    assert {name.split("/")[0] for name, _, _ in files.walk(store.uri)} == {"videos", "_state"}
    shutil.copytree(extracted.places.store, tmp_path / "store", dirs_exist_ok=True)
    found, probed = forecast.extraction(run, extracted.places.videos, store, [])
    assert found.seconds == 0 and "plan: nothing to extract" in found.lines
    labels = affwild2.read_splits(extracted.places.labels)
    nothing = str(tmp_path / "runs")
    empty = forecast_training(Forecast(), run, [], labels, nothing, 0)
    assert "no annotated video is here" in empty.warnings[-1]
    assert [said for said in empty.warnings if "has no video" in said] == empty.warnings[:-1]
    assert len(empty.warnings) == 1 + sum(len(tracks) for tracks in labels.values())
    many = {"train": {f"nobody{number}": gold for number in range(30) for gold in labels["train"].values()}}
    crowd = forecast_training(Forecast(), run, probed, {**labels, **many}, nothing, 0).warnings
    assert len(crowd) == 22 and crowd[20] == "and 10 more labels"
    [name] = labels["train"]
    short = {**labels, "train": {name: labels["train"][name][:10]}}
    refused = forecast_training(Forecast(), run, probed, short, nothing, 0)
    assert "plan: 0 training tracks, 0 frames; 1 development tracks" in refused.lines
    assert any("left out" in said and "are these 2 ratings a second" in said for said in refused.warnings)
    found = forecast_training(found, run, probed, labels, nothing, 0)
    assert found.seconds is None and sum("not timed yet" in line for line in found.lines) == 5
    assert found.show() == 0
    assert "how long it takes is not known yet" in capsys.readouterr().out


def test_a_plan_multiplies_what_was_measured(extracted: Micro, tmp_path: Path):
    run, store = extracted.run, Store(str(tmp_path / "store"))
    where = feature_addresses(run)
    for kind, work_s in (("face", 30.0), ("behavior", 5.0), ("audio", 1.0)):
        speed.record(store.uri, kind, where[kind], 10.0, work_s, 4.0)  # type: ignore[index]
    found, probed = forecast.extraction(run, extracted.places.videos, store, [])
    length = sum(entry.head.duration_s for entry in probed if entry.head)
    assert found.seconds == pytest.approx(4.0 + 3.0 * length)
    speed.record(store.uri, "face", where["face"], 10.0, 10.0, 2.0)  # runs are added up
    found, _ = forecast.extraction(run, extracted.places.videos, store, [])
    assert found.seconds == pytest.approx(4.0 + 2.0 * length)
    labels = affwild2.read_splits(extracted.places.labels)
    frames = sum(entry.head.num_frames for entry in probed if entry.head and entry.stem in labels["train"])
    face = replace(run, systems=("face",))
    speed.record(str(tmp_path / "runs"), *speed.training_key(face, "face"), 2.0 * frames, 8.0, 0.0)
    found = forecast_training(Forecast(), face, probed, labels, str(tmp_path / "runs"), 0)
    assert found.seconds == pytest.approx(8.0)


def test_a_plan_warns_of_pools_that_do_not_fit_and_of_a_full_disk(
    extracted: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1))
    run = replace(extracted.run, face=replace(extracted.run.face, num_cpus=8.0, max_actors=2))
    found, _ = forecast.extraction(run, extracted.places.videos, Store(str(tmp_path / "new")), [])
    said = "\n".join(found.warnings)
    assert "it would not start: --face asks for 8 CPUs" in said and "may grow to 16" in said and "free" in said


def test_speeds_that_cannot_be_read_are_measured_anew(tmp_path: Path):
    speed.record(str(tmp_path), "face", "x", 10.0, 5.0, 1.0)
    speed.record(str(tmp_path), "face", "x", 0.0, 5.0, 1.0)  # nothing was done
    assert speed.read(str(tmp_path), "face", "x") == speed.Speed(10.0, 5.0, 1.0, 1)
    (tmp_path / "_speed" / "face-x.json").write_text("{}")
    assert speed.read(str(tmp_path), "face", "x") is None


def test_a_log_goes_on_while_stages_work_and_shows_each(monkeypatch: pytest.MonkeyPatch, capsys: CaptureFixture[str]):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.05)
    monkeypatch.setattr(progress, "POLL_EVERY_S", 0.02)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    with Meter("extract", 10.0, "s", parts={"face": 10.0, "audio": 4.0}, poll=lambda: {"face": 3.0}) as meter:
        time.sleep(0.3)
        meter.advance(10.0)
    lines = capsys.readouterr().out.splitlines()
    assert "extract: face 3 of 10, audio 0 of 4 s" in lines[0] and lines[-1].startswith("extract: 10 of 10 s in")


def test_the_time_left_is_the_slowest_stage_s_and_does_not_rise_while_it_works_evenly(
    monkeypatch: pytest.MonkeyPatch, capsys: CaptureFixture[str]
):
    """Nothing is finished for a minute; the estimate is of what stages have done of what they are at."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    meter = Meter("extract", 300.0, "s of video", parts={"face": 300.0, "audio": 300.0})
    left = []
    for second in range(1, 140):
        clock[0] = float(second)
        for part, done in (("face", max(0.0, second - 20.0)), ("audio", 10.0 * second)):
            meter._rates[part].update(done)
        left.append(meter._rates["face"].left_s)
    assert left[:21] == [None] * 21 and left[-1] == pytest.approx(300 - 119)
    known = [seconds for seconds in left if seconds is not None]
    assert known == sorted(known, reverse=True)
    assert meter._rates["audio"].left_s == 0 and meter._left() == "about 3 min 01 s left"
    assert "face 119 of 300, audio 300 of 300 s of video in 2 min 19 s, about 3 min 01 s left" in meter._line()


def test_what_was_done_before_says_nothing_of_the_rate(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    rate = progress.Rate(100.0)
    rate.update(50.0)
    assert rate.left_s is None
    clock[0] = 10.0
    rate.update(60.0)
    assert rate.left_s == pytest.approx(40.0)
    rate.update(130.0)  # a clip that was begun twice
    assert rate.left_s == 0.0 and rate.done == 100.0


def test_a_notebook_gets_a_table(trained: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from affect.pipeline import notebook

    recipes = {"micro": (lambda: trained.run, lambda: trained.places)}
    monkeypatch.setattr(notebook, "recipes", lambda: recipes)
    [path] = Path(trained.places.new_videos).glob("*.mp4")
    table = affect.predict(str(path), recipe="micro", out=str(tmp_path))
    assert table.schema.equals(predictions_schema()) and table.num_rows == 50
    (tmp_path / "broken.mp4").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"nothing can be predicted; broken: cannot be opened"):
        affect.predict(str(tmp_path / "broken.mp4"), recipe="micro", out=str(tmp_path))
    with pytest.raises(ValueError, match="recipe 'x' is none of micro"):
        affect.predict(str(path), recipe="x")
    with pytest.raises(ValueError, match="no training x, but demo"):
        affect.predict(str(path), recipe="x", runs=trained.places.runs)


def test_a_notebook_anywhere_needs_no_more_than_the_models(
    trained: Micro, predicted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The micro corpus' settings, weights and store differ from the recipe's: all are what the models know."""
    runs = tmp_path / "runs"
    shutil.copytree(trained.places.runs, runs)
    for note in runs.glob("*.json"):
        if note.name != "demo.json":
            note.unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    [path] = Path(trained.places.new_videos).glob("*.mp4")
    table = affect.predict([str(path)], runs=str(runs), out=str(tmp_path / "out"))
    expected = pq.read_table(f"{predicted}/video03.parquet")
    assert table.drop_columns(["track"]).equals(expected.replace_schema_metadata().drop_columns(["track"]))
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (runs / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="has demo, other: name one with recipe="):
        affect.predict(str(path), runs=str(runs))


def test_the_run_note_names_versions_models_and_features(predicted: str):
    note = json.loads(io.BytesIO((Path(predicted) / "run.json").read_bytes()).read())
    made = note["made_with"]
    assert {"python", "affect", "torch", "raav model", "face features", "face extraction"} <= set(made)
    assert note["settings"]["name"] == "demo"


def test_what_the_same_models_predicted_before_is_kept_if_it_is_still_there(tmp_path: Path):
    models = {"face": "a" * 16}
    rows = [{"video": name, "status": status} for name, status in (("a", "ok"), ("b", "ok"), ("c", "failed"))]
    rows = [{"people": 1, "frames": 2, "duration_s": 0.5, "reason": "", **row} for row in rows]
    (tmp_path / "videos.csv").write_bytes(encode_csv(pa.Table.from_pylist(rows, schema=schema.OUTCOMES)))
    (tmp_path / "run.json").write_text(json.dumps({"models": models}))
    (tmp_path / "b.parquet").touch()
    assert [row["video"] for row in before(str(tmp_path), models)] == ["b", "c"]
    assert before(str(tmp_path), {"face": "b" * 16}) == [] == before(str(tmp_path / "nowhere"), models)
    (tmp_path / "videos.csv").write_text('"video","status"\n"a"\n')
    assert before(str(tmp_path), models) == []
