"""Real recordings through prediction, with the micro corpus' models: they say nothing, but people are found."""

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from affect.pipeline.extract import extract
from affect.pipeline.overlay import overlay
from affect.pipeline.predict import predict
from affect.settings.models import Speaking
from affect.storage.store import Store
from affect.trained.models import load_models
from tests.assets import clip
from tests.conftest import Micro

pytestmark = pytest.mark.slow


def test_two_people_one_and_none_are_found_in_real_clips(trained: Micro, tmp_path: Path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("obama_speech.mp4", "single_face.mp4", "no_face.mp4"):
        shutil.copy(clip(name), videos / name)
    store = Store(str(tmp_path / "store"))
    summary = extract(trained.run, str(videos), store)
    assert summary.exit_code == 0, summary.reasons
    rows = predict(
        trained.run, summary.videos, load_models(trained.run, trained.places.runs), store, str(tmp_path / "out")
    )
    by_video = {row["video"]: row for row in rows}
    assert {video: row["people"] for video, row in by_video.items()} == {
        "obama_speech": 2,
        "single_face": 1,
        "no_face": 0,
    }
    assert "no face" in by_video["no_face"]["reason"]
    table = pq.read_table(tmp_path / "out" / "obama_speech.parquet")
    assert table["track"].unique().to_pylist() == ["obama_speech_left", "obama_speech_right"]
    assert table["valence"].null_count == 0


def test_relative_to_the_video_the_speaker_is_heard_and_the_bystander_is_not(trained: Micro, tmp_path: Path):
    videos, store = tmp_path / "videos", Store(str(tmp_path / "store"))
    videos.mkdir()
    shutil.copy(clip("obama_speech.mp4"), videos / "obama_speech.mp4")
    run = replace(trained.run, systems=("audio",))
    found = extract(run, str(videos), store).videos
    kept = {}
    for relative_to in ("track", "video"):
        speaking = Speaking(relative_to=relative_to)
        out = tmp_path / relative_to
        overlay(replace(run, wavlm=replace(run.wavlm, speaking=speaking)), found, store, str(out))
        for row in pyarrow.csv.read_csv(out / "segments.csv").to_pylist():
            print(relative_to, row)
            kept.setdefault((relative_to, row["person"]), []).append(row["kept"])
    assert len(kept["track", "left"]) == len(kept["track", "right"]) == 4  # printed as they come
    assert all(kept["video", "right"]) and not any(kept["video", "left"])
