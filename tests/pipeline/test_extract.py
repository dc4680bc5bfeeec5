"""Extraction: every row where it belongs, resume, replaced videos, kills, and inputs that cannot be used."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import ray
from _pytest.capture import CaptureFixture

from affect import timeline
from affect.corpus.clip import Clip
from affect.corpus.videos import find
from affect.modalities import KINDS
from affect.pipeline import extract_actor
from affect.pipeline.extract import extract
from affect.pipeline.extract_actor import ExtractActor, Tally
from affect.pipeline.probe import probe_videos
from affect.plan.addresses import feature_addresses, wanted_features
from affect.plan.clips import Video, keys_of, load_probe, missing_units, unit_seconds
from affect.settings.extraction import Pool
from affect.storage import files, schema
from affect.storage.attempts import Attempts, Parts
from affect.storage.extracted import Extracted, Part
from affect.storage.store import Store
from tests.conftest import Micro, pools
from tests.jobs import LIMIT_S

ROOT = Path(__file__).parents[2]


def objects(store: str) -> dict[str, bytes]:
    """Every final object of a store; a killed write may leave a temporary file, which nobody reads."""
    names = [name for name, _, _ in files.walk(store) if not name.startswith("_") and "/._tmp." not in name]
    return {name: files.read(files.join(store, name)) for name in names}


def tally() -> str:
    """Name of an actor that counts what a stage does."""
    ray.remote(num_cpus=0)(Tally).options(name="tally", get_if_exists=True, lifetime="detached").remote()
    return "tally"


def videos_of(micro: Micro) -> list[Video]:
    """The micro corpus' labelled videos, probed."""
    return probe_videos(find(micro.places.videos), Store(micro.places.store), {})


def test_every_frame_and_segment_is_extracted_once_across_clips(extracted: Micro):
    store, where = Store(extracted.places.store), feature_addresses(extracted.run)
    for video in videos_of(extracted):
        assert video.head is not None and len(keys_of(video, extracted.run, where, "face")) == 3
        tables = {m: [store.get(k).table for k in keys_of(video, extracted.run, where, m)] for m in where}
        frames = [f for t in tables["face"] for f in t["frame"].to_pylist()]
        assert sorted(set(frames)) == list(range(50))  # the one face in every frame, and ghosts in a few
        expected = timeline.segments(video.head.duration_s)
        for modality in ("behavior", "audio"):
            rows = [row for t in tables[modality] for row in t.select(["segment", "start_s", "end_s"]).to_pylist()]
            assert [row["segment"] for row in rows] == list(range(len(expected)))
            found = np.array([(row["start_s"], row["end_s"]) for row in rows])
            assert found == pytest.approx(np.array(expected))


def test_what_a_clip_gives_does_not_depend_on_its_borders(extracted: Micro):
    store, where = Store(extracted.places.store), feature_addresses(extracted.run)
    video = videos_of(extracted)[0]
    assert video.head is not None
    whole = Clip(video.uri, load_probe(store, video.probe_key), 0.0, 60.0, extracted.run.grid)
    for modality in ("behavior", "audio"):
        parts = [store.get(key).table for key in keys_of(video, extracted.run, where, modality)]
        table = KINDS[modality].extractor(extracted.run, "cpu")(whole).table
        name = "waveform" if modality == "audio" else "multimodal"
        cut = [np.array(row, dtype=np.float64) for part in parts for row in part[name].to_pylist()]
        for a, b in zip(cut, table[name].to_pylist(), strict=True):
            # a decoder that starts elsewhere rounds elsewhere; batches of other sizes add up in another order
            assert np.abs(a - np.array(b)).max() <= (2 if modality == "audio" else 2e-2)


def test_extracting_again_does_nothing_and_says_so_in_one_line(extracted: Micro, capsys: CaptureFixture[str]):
    before = objects(extracted.places.store)
    summary = extract(extracted.run, extracted.places.videos, Store(extracted.places.store))
    assert summary.done.total() == 0 and summary.exit_code == 0
    assert "0 of 6 clips to do" in capsys.readouterr().out
    assert objects(extracted.places.store) == before


def test_a_deleted_object_is_made_again_alone_and_byte_identical(extracted: Micro):
    before = objects(extracted.places.store)
    gone = next(name for name in before if name.startswith("behavior/"))
    (Path(extracted.places.store) / gone).unlink()
    with pools(in_process=True):
        summary = extract(extracted.run, extracted.places.videos, Store(extracted.places.store))
    assert summary.done == {"ok": 1}
    assert objects(extracted.places.store) == before
    assert not list((Path(extracted.places.store) / "_attempts").iterdir())  # nor is anything left behind


def test_a_video_replaced_under_its_name_is_extracted_anew(extracted: Micro, tmp_path: Path):
    videos = tmp_path / "videos"
    shutil.copytree(extracted.places.videos, videos)
    store = Store(str(tmp_path / "store"))
    shutil.copytree(extracted.places.store, store.uri)
    one, two = sorted(videos.iterdir())
    assert extract(extracted.run, str(videos), store).done.total() == 0
    shutil.copy(two, one)
    with pools(in_process=True):
        summary = extract(extracted.run, str(videos), store)
    assert summary.done == {"ok": 9}  # three clips in three modalities, and nothing of the other video


def test_an_unreadable_video_a_silent_one_and_an_odd_name_harm_no_neighbour(
    extracted: Micro, tmp_path: Path, capsys: CaptureFixture[str]
):
    videos = tmp_path / "videos"
    videos.mkdir()
    good = sorted(Path(extracted.places.videos).iterdir())[0]
    shutil.copy(good, videos / "odd name, ü 'x'.mp4")
    (videos / "empty.mp4").write_bytes(b"")
    (videos / "text.mp4").write_text("this is no video")
    (videos / "cut.mp4").write_bytes(good.read_bytes()[:4000])
    (videos / "below").mkdir()
    Path(os.fsdecode(os.fsencode(videos) + b"/below/caf\xe9.mp4")).write_bytes(b"x")
    store = Store(str(tmp_path / "store"))
    summary = extract(extracted.run, str(videos), store)
    said = capsys.readouterr().out
    assert summary.exit_code == 3 and summary.done == {"ok": 9}
    reasons = {"empty.mp4": "empty", "text.mp4": "cannot be opened", "cut.mp4": "cannot be opened"}
    assert not any("/" in video.stem for video in summary.videos)  # outcomes are tables that are called so
    for name, reason in (reasons | {"below/caf\\udce9.mp4": "not UTF-8"}).items():
        assert any(name in line and reason in line for line in said.splitlines()), name


class AudioStage(NamedTuple):
    """An actor's work in this process, the row of a clip that it has to do, and where that goes."""

    stage: ExtractActor
    attempts: Attempts
    row: dict[str, Any]
    store: Store
    key: str

    def __call__(self, **changes: object) -> dict[str, Any]:
        """Do the clip."""
        return self.stage({name: [value] for name, value in (self.row | changes).items()})


@pytest.fixture
def audio_stage(extracted: Micro, tmp_path: Path) -> AudioStage:
    store, where, video = Store(str(tmp_path / "store")), feature_addresses(extracted.run), videos_of(extracted)[0]
    shutil.copytree(Path(extracted.places.store) / "videos", Path(store.uri) / "videos")
    attempts = Attempts(store, "run")
    stage = ExtractActor("audio", extracted.run, store, where, attempts, tally())
    row = {"uri": video.uri, "probe_key": video.probe_key, "number": 0, "prompts": "neutral"}
    row |= {"missing": "audio", "length_s": 2.0, "again": False}
    return AudioStage(stage, attempts, row, store, keys_of(video, extracted.run, where, "audio")[0])


def test_a_clip_that_keeps_killing_its_process_is_quarantined(audio_stage: AudioStage):
    """Three attempts were begun and none ended: the next one writes a failure instead of trying."""
    for _ in range(3):
        audio_stage.attempts.begin(audio_stage.key)
    result = audio_stage()
    assert result["audio_status"] == ["failed"] and "died 3 times" in result["audio_reason"][0]
    assert audio_stage.store.outcome(audio_stage.key).status == "failed"


class Stopped(BaseException):
    """As Ctrl-C and kills: nothing in between hears of it."""


@pytest.mark.parametrize("kind", ["face", "behavior", "description"])
def test_a_clip_that_was_stopped_goes_on_from_its_last_part_and_ends_with_the_same_bytes(
    extracted: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    """At every part; what was done before is not done again."""
    monkeypatch.setattr("affect.face.clip.PART_PICTURES", 16)
    monkeypatch.setattr("affect.face.clip.BATCH_PICTURES", 8)
    monkeypatch.setattr(extract_actor, "KEEP_EVERY_S", 0.0)
    run = replace(
        extracted.run,
        grid=replace(extracted.run.grid, clip_s=60.0),
        behavior=replace(extracted.run.behavior, micro_batch=1),
    )
    where = wanted_features(run, [], [], describe=True).where
    video = videos_of(extracted)[0]
    row: dict[str, Any] = {"uri": video.uri, "probe_key": video.probe_key, "number": 0, "prompts": "neutral"}
    row |= {"missing": kind, "length_s": 5.0, "again": False}
    made: dict[str, dict[str, bytes]] = {}
    for name in ("whole", "stopped"):
        store = Store(str(tmp_path / name))
        shutil.copytree(Path(extracted.places.store) / "videos", Path(store.uri) / "videos")
        begun: list[tuple[int, float]] = []
        stops, extract_clip = 0, KINDS[kind].extractor(run, "cpu")

        def kept(parts: Parts, key: str, part: Part, keep: Any = Parts.keep) -> None:
            keep(parts, key, part)
            raise Stopped

        def noted(clip: Clip, part: Part | None, save: Any, begun: Any = begun, go: Any = extract_clip) -> Extracted:
            begun.append((part.last, part.share) if part else (-1, 0.0))
            return go(clip, part, save)

        while True:
            stage = ExtractActor(kind, run, store, where, Attempts(store, f"run{stops}"), tally())
            with monkeypatch.context() as patch:
                patch.setattr(stage, "_extract", noted)
                if name == "stopped":
                    patch.setattr(Parts, "keep", kept)
                try:
                    done = stage({key: [value] for key, value in row.items()})
                    break
                except Stopped:
                    stops += 1
        assert done[f"{kind}_status"] == ["ok"] and stops == len(begun) - 1
        made[name] = objects(store.uri)
        assert not [key for key, _, _ in files.walk(store.uri) if key.startswith("_parts")]
    assert stops >= 1 and begun == sorted(begun) and len(set(begun)) == len(begun) and 0 < begun[-1][1] <= 1
    assert made["whole"] == made["stopped"]


def test_a_part_that_cannot_be_read_is_done_again(tmp_path: Path):
    parts, table = Parts(Store(str(tmp_path))), schema.AUDIO.empty_table()
    assert parts.load("x", table.schema, attempted=True) is None
    parts.keep("x", Part(table, 7, 0.5, {"seen": 3}))
    found = Parts(Store(str(tmp_path))).load("x", table.schema, attempted=False)
    assert found is not None and found[1:] == (7, 0.5, {"seen": 3}) and found.table.equals(table)
    [path] = (tmp_path / "_parts").iterdir()
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:40] + bytes(20) + whole[60:]):
        path.write_bytes(content)
        assert parts.load("x", table.schema, attempted=True) is None
    parts.end("x")
    parts.end("x")
    assert not path.exists()


def test_seconds_of_video_are_counted_as_parts_are_done(
    extracted: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("affect.face.clip.PART_PICTURES", 16)
    run = replace(extracted.run, grid=replace(extracted.run.grid, clip_s=60.0))
    counted: list[float] = []

    class Counter:
        """Hears what a tally hears."""

        class add:  # noqa: N801 -- an actor's method
            """Counts."""

            @staticmethod
            def remote(kind: str, seconds: float) -> None:
                """Count."""
                counted.append(seconds)

    store, where, video = Store(str(tmp_path / "store")), feature_addresses(run), videos_of(extracted)[0]
    shutil.copytree(Path(extracted.places.store) / "videos", Path(store.uri) / "videos")
    monkeypatch.setattr(ray, "get_actor", lambda _: Counter())
    stage = ExtractActor("face", run, store, where, Attempts(store, "run"), "tally")
    row = {"uri": video.uri, "probe_key": video.probe_key, "number": 0, "prompts": "neutral", "missing": "face"}
    stage({name: [value] for name, value in (row | {"length_s": 5.0, "again": False}).items()})
    assert len(counted) >= 3 and sum(counted) == pytest.approx(5.0) and all(seconds >= 0 for seconds in counted)


def test_a_run_begins_with_short_clips_and_goes_on_with_the_longest(extracted: Micro, tmp_path: Path):
    """Five seconds in clips of two: the last of each video is one second long."""
    videos, store = videos_of(extracted), Store(str(tmp_path))
    units, _ = missing_units(videos, extracted.run, feature_addresses(extracted.run), store, retry_failed=False)
    lengths = [unit_seconds(videos[unit.video], unit, extracted.run) for unit in units]
    assert lengths == pytest.approx([1.0, 1.0, 2.0, 2.0, 2.0, 2.0])


def test_starting_actors_prints_nothing_red(extracted: Micro, tmp_path: Path):
    """Ray's warning of constructor arguments in its object store, which looks like an error, at every pool."""
    program = (
        "import sys, ray; from tests.conftest import micro_run; from affect.pipeline.extract import extract; "
        "from affect.storage.store import Store; from dataclasses import replace; "
        "ray.init('local', num_cpus=2, include_dashboard=False, object_store_memory=100_000_000); "
        "run = replace(micro_run(sys.argv[1]), systems=('audio',)); "
        "run = replace(run, face=replace(run.face, weights='')); "
        "extract(run, sys.argv[2], Store(sys.argv[3]))"
    )
    command = [sys.executable, "-c", program, str(extracted.root), extracted.places.new_videos, str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        command,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0 and "extract:" in done.stdout, done.stderr
    assert "core_worker" not in done.stdout + done.stderr


def test_a_clip_that_hangs_is_stopped_by_its_limit_and_given_up_after_three(extracted: Micro, tmp_path: Path):
    """Each attempt is a process of its own, which ends itself; the fourth writes what happened."""
    shutil.copytree(Path(extracted.places.store) / "videos", tmp_path / "store" / "videos")
    command = [sys.executable, str(Path(__file__).parent / "hang.py"), str(extracted.root), str(tmp_path / "store")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ends = [
        subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        for _ in range(4)
    ]
    assert [end.returncode for end in ends] == [1, 1, 1, 0], ends[-1].stderr
    assert all("Timeout" in end.stderr and "hangs" in end.stderr for end in ends[:3])
    assert "failed, its process died 3 times, or was stopped after 0.5 s" in ends[-1].stdout
    [key] = Store(str(tmp_path / "store")).keys("audio")
    assert Store(str(tmp_path / "store")).outcome(key).status == "failed"


def test_doing_failed_clips_again_never_loses_what_is_fine(audio_stage: AudioStage, monkeypatch: pytest.MonkeyPatch):
    store, key = audio_stage.store, audio_stage.key
    store.put(key, Extracted(schema.AUDIO.empty_table(), "failed", "broken once"))
    assert audio_stage(again=True)["audio_status"] == ["ok"] and store.outcome(key).status == "ok"
    for _ in range(3):
        audio_stage.attempts.begin(key)
    assert audio_stage(again=True)["audio_status"] == ["ok"] and store.outcome(key).status == "ok"
    monkeypatch.setattr(store, "has", lambda key: False)  # it came while this attempt was given up
    assert audio_stage(again=True)["audio_status"] == ["ok"] and store.outcome(key).status == "ok"


def test_what_fails_in_the_surroundings_is_not_recorded(audio_stage: AudioStage, tmp_path: Path):
    """The video went away after it was probed: an error now, nothing written, done by the next run."""
    result = audio_stage(uri=str(tmp_path / "gone.mp4"))
    assert result["audio_status"] == ["error"] and "No such file" in result["audio_reason"][0]
    assert audio_stage.store.keys("audio") == set()


@pytest.mark.parametrize(
    "error",
    [OSError(28, "cannot write 9 bytes (No space left on device)"), PermissionError("s3://b: access is denied (old)")],
)
def test_a_store_that_takes_nothing_stops_the_job_and_a_video_that_is_forbidden_does_not(
    audio_stage: AudioStage, monkeypatch: pytest.MonkeyPatch, error: OSError
):
    def refuse(*_: object, **__: object) -> None:
        raise error

    def forbidden(clip: Clip, *_: object) -> Extracted:
        raise PermissionError(13, "Permission denied", clip.uri)

    with monkeypatch.context() as patch:
        patch.setattr(audio_stage.stage, "_extract", forbidden)
        assert "Permission denied" in audio_stage()["audio_reason"][0]
    for name in ("has", "put"):
        with monkeypatch.context() as patch:
            patch.setattr(audio_stage.store, name, refuse)
            with pytest.raises(type(error), match=r"No space left|access is denied"):
                audio_stage()
    with monkeypatch.context() as patch:
        patch.setattr(audio_stage.store, "put", lambda *_, **__: (_ for _ in ()).throw(OSError("timed out")))
        assert audio_stage()["audio_status"] == ["error"]  # the next clip may fare better
    assert audio_stage.store.keys("audio") == set()


def test_pools_that_cannot_fit_are_an_error_before_anything_starts(extracted: Micro, tmp_path: Path):
    run = replace(extracted.run, face=replace(extracted.run.face, num_cpus=8.0))
    said = r"--face asks for 8 CPUs.*no node has room.*nearest is .* with 2 CPUs.*--face.num-cpus"
    with pytest.raises(ValueError, match=said):
        extract(run, extracted.places.videos, Store(str(tmp_path)))


def test_a_label_that_no_node_can_have_is_refused():
    with pytest.raises(ValueError, match="KEY=VALUE"):
        Pool(node_label="gpu")
