"""Films of who is who."""

from dataclasses import replace
from pathlib import Path

import av
import pyarrow.csv
import pytest
from _pytest.capture import CaptureFixture

from affect.corpus.videos import find
from affect.pipeline.overlay import overlay
from affect.pipeline.probe import probe_videos
from affect.storage.store import Store
from tests.conftest import Micro

pytestmark = pytest.mark.usefixtures("pools_here")


@pytest.fixture(scope="module")
def out(extracted: Micro, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the micro corpus' films."""
    folder = tmp_path_factory.mktemp("overlay")
    store = Store(extracted.places.store)
    overlay(extracted.run, probe_videos(find(extracted.places.videos), store, {}), store, str(folder))
    return folder


def test_every_video_has_a_film_of_its_length_with_sound(out: Path):
    for name in ("video01", "video02"):
        with av.open(str(out / f"{name}.mp4")) as film:
            assert len(film.streams.audio) == 1
            frames = list(film.decode(video=0))
        assert len(frames) == 50 and float(frames[-1].pts * frames[-1].time_base) == pytest.approx(4.9)


def test_the_table_says_who_is_seen_and_for_how_long(out: Path):
    people = pyarrow.csv.read_csv(out / "people.csv").to_pylist()
    assert [(row["video"], row["person"], row["frames"], row["seen"]) for row in people] == [
        ("video01", "main", 50, 50),
        ("video02", "main", 50, 50),
    ]
    assert all(0 < row["lip_area"] < 0.1 and 0.3 < row["x"] < 0.7 and 0 < row["open_s"] < 5 for row in people)
    segments = pyarrow.csv.read_csv(out / "segments.csv").to_pylist()
    assert [(row["video"], row["start_s"], row["end_s"]) for row in segments] == [
        (video, start_s, end_s) for video in ("video01", "video02") for start_s, end_s in ((0.0, 4.0), (2.0, 5.0))
    ]
    assert all(row["coverage"] == 1 and row["kept"] == (row["open_s"] >= 1) != bool(row["reason"]) for row in segments)
    kept = {name: sum(row["kept"] for row in segments if row["video"] == name) for name in ("video01", "video02")}
    assert [(row["segments"], row["kept"]) for row in people] == [(2, kept["video01"]), (2, kept["video02"])]


def test_what_is_drawn_is_not_drawn_again_and_a_new_rule_is(out: Path, extracted: Micro):
    store = Store(extracted.places.store)
    videos = probe_videos(find(extracted.places.videos), store, {})
    film = out / "video01.mp4"
    before = film.stat().st_mtime_ns
    overlay(extracted.run, videos, store, str(out))
    assert film.stat().st_mtime_ns == before
    other = replace(extracted.run, tracking=replace(extracted.run.tracking, max_gap_s=0.5))
    overlay(other, videos, store, str(out))
    assert film.stat().st_mtime_ns > before


def test_a_video_that_was_not_extracted_is_said(extracted: Micro, tmp_path: Path, capsys: CaptureFixture[str]):
    store = Store(str(tmp_path / "empty"))
    videos = probe_videos(find(extracted.places.videos), store, {})
    overlay(replace(extracted.run, name="other"), videos[:1], store, str(tmp_path / "out"))
    assert "face and audio have not been extracted" in capsys.readouterr().out
    assert pyarrow.csv.read_csv(tmp_path / "out" / "people.csv").num_rows == 0


def test_films_do_not_go_among_the_videos(extracted: Micro):
    store = Store(extracted.places.store)
    videos = probe_videos(find(extracted.places.videos), store, {})
    for folder in (extracted.places.videos, f"{extracted.places.videos}/films"):
        with pytest.raises(ValueError, match="lies among the videos"):
            overlay(extracted.run, videos, store, folder)
