"""Every kind of file that people have, in one folder: each ends in its own way, and its neighbours are as if alone."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy import ndarray

from affect.corpus import video
from affect.corpus.clip import Clip
from affect.modalities import KINDS
from affect.pipeline.extract import extract
from affect.plan.addresses import feature_addresses
from affect.plan.clips import keys_of, load_probe
from affect.storage import files
from affect.storage.store import Store
from tests.conftest import Micro
from tests.media import Film, Sound, number_of, tone, turned, write

EVEN = [40 * k for k in range(30)]
UNEVEN = [0, *np.cumsum(np.random.default_rng(0).integers(20, 80, 29)).tolist()]
GROUPS = {"g": "6", "bf": "0"}
MAX_MIB = 1200.0
"""Of an actor: torch, transformers and the models take most of it."""


def sound(rate: int = 16_000, seconds: float = 1.2, channels: int = 1, **stored: object) -> Sound:
    return Sound(samples=np.repeat(tone(rate, seconds)[None], channels, axis=0), rate=rate, **stored)  # type: ignore[arg-type]


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(len(content) * share)]


def flipped(content: bytes) -> bytes:
    """Every two-hundredth byte of all but the beginning has a wrong bit."""
    values = np.frombuffer(content, dtype=np.uint8).copy()
    values[len(values) // 4 :: 200] ^= 16
    return values.tobytes()


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file, and how it has to end.

    Args:
        film: what is encoded.
        spoilt: what happens to the file afterwards.
        refused: why it cannot be used, where it cannot.
        partial: whether frames may be lacking.
    """

    film: Film
    spoilt: Callable[[bytes], bytes] = bytes
    refused: str = ""
    partial: bool = False


def film(name: str, *, ticks: list[int] = EVEN, sound: Sound | None = None, **stored: object) -> Film:
    return Film(name=name, ticks=ticks, sound=sound, **stored)  # type: ignore[arg-type]


def cases() -> Iterator[Case]:
    aac = sound(codec="aac")
    yield Case(film=film("empty.mp4"), spoilt=lambda _: b"", refused="the file is empty")
    yield Case(film=film("text.mp4"), spoilt=lambda _: b"dear diary, " * 99, refused="cannot be opened")
    yield Case(film=film("half a header.mp4"), spoilt=lambda b: b[:40], refused="cannot be opened")
    yield Case(film=film("no end.mp4"), spoilt=cut(0.9), refused="cannot be opened")
    for share in (10, 50, 90):
        stored = film(f"mkv cut at {share}.mkv", options=GROUPS, sound=aac)
        yield Case(film=stored, spoilt=cut(share / 100), partial=True)
        stored = film(f"mp4 cut at {share}.mp4", options=GROUPS, container={"movflags": "faststart"})
        yield Case(film=stored, spoilt=cut(share / 100), partial=True)
    yield Case(film=film("mkv flipped.mkv", options=GROUPS, sound=aac), spoilt=flipped, partial=True)
    yield Case(film=film("mp4 flipped.mp4", options=GROUPS, sound=aac), spoilt=flipped, partial=True)
    yield Case(film=film("no sound.mp4"))
    yield Case(film=film("long sound.mp4", sound=sound(seconds=4.0, codec="aac")))
    yield Case(film=film("late sound.mkv", sound=sound(seconds=0.5, start_s=0.5)))
    yield Case(film=film("uneven.mp4", ticks=UNEVEN))
    yield Case(film=film("ntsc film.mkv", ticks=[round(k * 1001 / 24) for k in range(24)]))
    yield Case(film=film("sixty.mkv", ticks=[round(k * 1000 / 60) for k in range(72)]))
    for turn in (1, 2, 3):
        yield Case(film=film(f"turned {90 * turn}.mp4"), spoilt=lambda b, turn=turn: turned(b, turn))  # type: ignore[misc]
    yield Case(film=film("odd.webm", codec="libvpx-vp9", size=(67, 51), options={"deadline": "realtime"}))
    yield Case(film=film("tiny.mkv", size=(16, 16)))
    yield Case(film=film("wide pixels.mp4", pixel_aspect=Fraction(16, 11)))
    yield Case(film=film("one.mp4", ticks=[0]))
    yield Case(film=film("hevc.mp4", codec="libx265", size=(128, 96), options={"x265-params": "log-level=none"}))
    yield Case(film=film("av1.mp4", codec="libsvtav1", options={"preset": "12"}))
    yield Case(film=film("mjpeg.avi", codec="mjpeg", pix_fmt="yuvj420p", time_base=Fraction(1, 25), options={}))
    yield Case(film=film("moving.gif", codec="gif", pix_fmt="rgb8", time_base=Fraction(1, 100), options={}))
    yield Case(film=film("prores.mov", codec="prores_ks", pix_fmt="yuv422p10le", options={}))
    yield Case(film=film("ten bits.mkv", pix_fmt="yuv420p10le"))
    yield Case(film=film("422.mkv", pix_fmt="yuv422p"))
    yield Case(film=film("interlaced.mp4", options={"x264-params": "tff=1", "flags": "+ildct+ilme"}))
    yield Case(film=film("edited.mp4", ticks=UNEVEN, options={"x264-params": "bframes=3"}, sound=aac))
    below = [tick - 400 for tick in EVEN]
    yield Case(film=film("negative.ts", ticks=below, container={"avoid_negative_ts": "disabled"}))
    yield Case(film=film("stream.ts", sound=sound(codec="aac"), time_base=Fraction(1, 90_000)))
    yield Case(film=film("surround.mp4", sound=sound(48_000, channels=6, codec="aac")))
    yield Case(film=film("telephone.mkv", sound=sound(8_000)))
    yield Case(film=film("silence.mp4", sound=replace(aac, samples=np.zeros((1, 19_200)))))


@contextmanager
def watched() -> Iterator[list[float]]:
    """The largest resident memory of extraction's actors, MiB, in the list at the end of the block."""
    peaks, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.3):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    if b"MapBatches(ExtractActor)" in (folder / "cmdline").read_bytes():
                        status = (folder / "status").read_text()
                        peaks[0] = max(peaks[0], int(status.partition("VmHWM:")[2].split()[0]) / 1024)
                except (OSError, IndexError):
                    continue  # it ended meanwhile

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def nearest_ms(found: ndarray, wanted: list[int]) -> ndarray:
    """How far each time is from the nearest that it could be, milliseconds."""
    return np.abs(found[:, None] * 1000 - np.array(wanted)[None] + wanted[0]).min(axis=1)


@pytest.mark.slow
def test_each_file_ends_in_its_own_way_and_its_neighbours_are_as_if_alone(extracted: Micro, tmp_path: Path):
    folder, store = tmp_path / "videos", Store(str(tmp_path / "store"))
    folder.mkdir()
    known = {case.film.name: case for case in cases()}
    for case in known.values():
        path = write(folder, case.film)
        path.write_bytes(case.spoilt(path.read_bytes()))
    write(folder, film("only sound.mp4", sound=sound(codec="aac")))
    for good in sorted(Path(extracted.places.videos).iterdir()):
        shutil.copy(good, folder / good.name)
    with watched() as peaks:
        summary = extract(extracted.run, str(folder), store)
    print(f"actors took {peaks[0]:.0f} MiB at most; {dict(summary.done)}")
    assert summary.exit_code == 3 and not summary.done["error"] and 300 < peaks[0] < MAX_MIB
    where = feature_addresses(extracted.run)
    for entry in summary.videos:
        case = known.get(entry.path)
        if case is None:
            continue
        if case.refused or entry.head is None:
            assert entry.head is None and (case.refused or case.partial), entry
            assert case.refused in entry.reason and entry.reason and "\n" not in entry.reason
            continue
        probe = load_probe(store, entry.probe_key)
        gaps = np.diff(case.film.ticks, append=case.film.ticks[-1] + 40)
        assert nearest_ms(probe.time_s, list(case.film.ticks)).max() < gaps.min() / 2, entry.path
        assert case.partial or len(probe.time_s) == len(case.film.ticks), entry.path
        for kind in extracted.run.extracted:
            for key in keys_of(entry, extracted.run, where, kind):
                found = store.get(key)
                assert (found.status == "ok") == (not found.reason), (entry.path, kind, found.status, found.reason)
                if kind == "audio" and not case.partial:
                    assert found.status == ("ok" if case.film.sound else "degraded"), (entry.path, found.reason)
                if kind == "behavior" and not case.partial:
                    assert found.status == "ok", (entry.path, found.reason)
    assert {entry.path for entry in summary.videos} == {path.name for path in folder.iterdir()}
    for good in Path(extracted.places.videos).iterdir():
        [entry] = [entry for entry in summary.videos if entry.path == good.name]
        keys = [key for kind in where for key in keys_of(entry, extracted.run, where, kind)]
        alone = [files.read(Store(extracted.places.store).uri_of(key)) for key in keys]
        assert [files.read(store.uri_of(key)) for key in keys] == alone and len(keys) == 9


def test_the_matrix_has_what_it_promises():
    assert len({Path(case.film.name).stem for case in cases()}) == 39  # and one without pictures


@pytest.mark.slow
def test_two_hours_are_read_where_a_clip_is(extracted: Micro, tmp_path: Path):
    """Clips at the beginning, in the middle and at the end of a recording, frame by frame."""
    seconds = 7200
    path = write(tmp_path, film("long.mp4", ticks=[1000 * k for k in range(seconds)], options={"g": "60", "bf": "0"}))
    probe = video.probe(str(path), path.name)
    assert len(probe.time_s) == seconds and probe.time_s[-1] == seconds - 1
    take = {kind: KINDS[kind].extractor(extracted.run, "cpu") for kind in extracted.run.extracted}
    for start_s in (0.0, 3600.0, 7140.0):
        clip = Clip(str(path), probe, start_s, start_s + 60.0, extracted.run.grid)
        first, last = clip.frames
        start = time.monotonic()
        shown = list(video.decode(clip.uri, probe, first, last))
        assert [n for n, _ in shown] == list(range(first, last))
        assert all(number_of(rgb) == n % 256 for n, rgb in shown)
        found = {kind: one(clip) for kind, one in take.items()}
        assert found["behavior"].table.num_rows == len(clip.segments) and found["behavior"].status == "ok"
        assert found["face"].reason == "no face found" and found["audio"].reason == "no audio stream"
        print(f"clip at {start_s:g} s: {time.monotonic() - start:.1f} s")
