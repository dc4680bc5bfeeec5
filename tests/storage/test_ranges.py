"""Files in buckets by range: what is asked for, and how often."""

import os
import random
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from affect.corpus import audio, video
from affect.storage import files, ranges
from affect.storage.ranges import BLOCK, RangeFile
from tests.media import Film, Sound, noise, tone, write

EVEN = [40 * i for i in range(100)]
UNEVEN = [40 * i + (i % 3) * 11 for i in range(100)]
B_FRAMES = {"bf": "3", "g": "12", "sc_threshold": "0"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[tuple[int, int]]]:
    """Ranges that were asked for."""
    monkeypatch.setenv("AFFECT_CACHE", str(tmp_path / "cache"))
    found: list[tuple[int, int]] = []
    plain = files.read_range

    def count(uri: str, start: int, end: int) -> bytes:
        found.append((start, end))
        return plain(uri, start, end)

    monkeypatch.setattr(files, "read_range", count)
    yield found


def put(content: bytes, name: str = "a.bin") -> str:
    uri = f"memory://ranges/{name}"
    files.write(uri, content)
    return uri


def test_any_reads_give_the_files_bytes_and_none_is_asked_for_twice(asked: list[tuple[int, int]]):
    content = random.Random(0).randbytes(5 * BLOCK + 123)
    uri, drawn = put(content), random.Random(1)
    for _ in range(2):  # the second one finds everything on the node
        with RangeFile(uri) as file:
            for _ in range(60):
                at, size = drawn.randrange(len(content) + 10), drawn.randrange(2 * BLOCK)
                file.seek(at)
                assert file.read(size) == content[at : at + size] and file.tell() == max(
                    at, min(at + size, len(content))
                )
            file.seek(0)
            assert file.read() == content and file.read(1) == b""
    starts = [start for start, _ in asked]
    assert len(starts) == len(set(starts)) and sum(end - start for start, end in asked) == len(content)


def test_a_long_read_takes_few_requests_and_little_beyond_its_end(asked: list[tuple[int, int]]):
    uri = put(bytes(100 * BLOCK))
    with RangeFile(uri) as file:
        file.seek(10 * BLOCK)
        for _ in range(60):
            file.read(BLOCK)
    assert len(asked) <= 30 and sum(end - start for start, end in asked) <= (60 * 9 / 8 + 1) * BLOCK


def test_a_replaced_file_is_read_anew(asked: list[tuple[int, int]]):
    for content in (b"one", b"two"):
        assert RangeFile(put(content)).read() == content


def test_the_cache_is_bounded_and_what_was_used_longest_ago_goes(
    asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(ranges, "LIMIT", 4 * BLOCK)
    monkeypatch.setattr(ranges, "TIDY_EVERY", 0)
    for number in range(20):
        RangeFile(put(bytes(BLOCK), f"{number}.bin")).read()
        kept = [path for path in (tmp_path / "cache" / "ranges").rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in kept) <= 4 * BLOCK
    before = len(asked)
    RangeFile(put(bytes(BLOCK), "19.bin"))  # was just replaced, so nothing of it is known
    RangeFile(put(bytes(BLOCK), "19.bin")).read()
    assert len(asked) == before + 1


def test_what_vanishes_while_the_cache_is_tidied_is_passed_over(
    asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """A temporary file of another process has its name before its size is asked for; the bound holds all the same."""
    for number in range(6):
        RangeFile(put(bytes(BLOCK), f"{number}.bin")).read()
    folders = list((tmp_path / "cache" / "ranges").iterdir())
    for folder in folders:
        (folder / "._tmp.0").write_bytes(b"")
    stat = Path.stat

    def vanished(path: Path, **settings: bool) -> os.stat_result:
        if path.name.startswith("._tmp."):
            path.unlink(missing_ok=True)
        return stat(path, **settings)

    monkeypatch.setattr(Path, "stat", vanished)
    monkeypatch.setattr(ranges, "LIMIT", 4 * BLOCK)
    ranges._tidy(tmp_path / "cache" / "ranges")
    monkeypatch.undo()
    kept = [path for path in (tmp_path / "cache" / "ranges").rglob("*") if path.is_file()]
    assert len(folders) == 6 and sum(path.stat().st_size for path in kept) <= 2 * BLOCK


def test_a_cache_that_cannot_be_written_to_is_done_without(
    asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("AFFECT_CACHE", str(tmp_path / "file"))
    assert RangeFile(put(b"content")).read() == b"content"


def test_a_torn_block_is_fetched_again(asked: list[tuple[int, int]], tmp_path: Path):
    uri = put(b"content")
    RangeFile(uri).read()
    [block] = [path for path in (tmp_path / "cache" / "ranges").rglob("0")]
    block.write_bytes(b"con")
    assert RangeFile(uri).read() == b"content" and len(asked) == 2


def test_a_file_that_is_missing_is_said():
    with pytest.raises(FileNotFoundError):
        RangeFile("memory://ranges/nothing.bin")


SOUND = Sound(samples=tone(16_000, 4.0)[None], rate=16_000, codec="aac")
FILMS = [
    Film(name="b_frames.mp4", ticks=UNEVEN, options=B_FRAMES, sound=SOUND),
    Film(name="index_first.mp4", ticks=EVEN, options=B_FRAMES, container={"movflags": "+faststart"}),
    Film(name="edited.mov", ticks=[t + 333 for t in EVEN], options=B_FRAMES, sound=SOUND),
    Film(name="hevc.mp4", ticks=EVEN, codec="libx265", options={"x265-params": "bframes=3:keyint=12:log-level=none"}),
    Film(name="mpeg4.mp4", ticks=EVEN, codec="mpeg4", options={"bf": "2"}, time_base=Fraction(1, 25)),
    Film(name="vp9.mp4", ticks=EVEN, codec="libvpx-vp9", options={"g": "12"}),
    Film(name="av1.mp4", ticks=EVEN, codec="libsvtav1", options={"g": "12", "preset": "12"}),
    Film(name="fragments.mp4", ticks=EVEN, container={"movflags": "frag_keyframe+empty_moov"}, sound=SOUND),
    Film(name="b_frames.mkv", ticks=UNEVEN, options=B_FRAMES, sound=SOUND),
    Film(name="plain.avi", ticks=EVEN, time_base=Fraction(1, 25)),
]


@pytest.mark.parametrize("film", FILMS, ids=lambda film: film.name)
def test_a_bucket_and_a_disk_say_the_same_of_a_video(
    film: Film, asked: list[tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ranges, "BLOCK", 512)
    path = write(tmp_path, film)
    uri = put(path.read_bytes(), film.name)
    here, there = video.probe(str(path), film.name), video.probe(uri, film.name)
    assert here.fingerprint == there.fingerprint and np.array_equal(here.time_s, there.time_s)
    assert (here.width, here.height, here.has_audio, here.start_s) == (
        there.width,
        there.height,
        there.has_audio,
        there.start_s,
    )
    for (n, mine), (m, theirs) in zip(
        video.decode(str(path), here, 30, 60), video.decode(uri, there, 30, 60), strict=True
    ):
        assert n == m and np.array_equal(mine, theirs)
    if film.sound:
        assert np.array_equal(audio.decode(str(path), here, 1.0, 2.0).wave, audio.decode(uri, there, 1.0, 2.0).wave)


CODECS = [("libx264", {"bf": "3", "g": "12", "preset": "ultrafast"}), ("mpeg4", {"bf": "2", "q": "2"})]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec[0])
def test_frame_times_of_an_indexed_file_need_its_index_alone(
    codec: tuple[str, dict[str, str]], asked: list[tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ranges, "BLOCK", 16 << 10)
    monkeypatch.setattr(files, "MIB", 16 << 10)  # of the fingerprint
    path = noise(tmp_path / "a.mp4", *codec, 200)
    there = video.probe(put(path.read_bytes()), path.name)
    assert np.array_equal(there.time_s, video.probe(str(path), path.name).time_s) and len(there.time_s) == 200
    assert sum(end - start for start, end in asked) < 0.1 * path.stat().st_size


def test_a_clip_costs_little_more_than_its_bytes_and_the_second_modality_nothing(
    asked: list[tuple[int, int]], tmp_path: Path
):
    path = noise(tmp_path / "a.mp4", *CODECS[0], 600)
    info, uri = video.probe(str(path), path.name), put(path.read_bytes())
    assert len(list(video.decode(uri, info, 200, 400))) == 200
    fetched = sum(end - start for start, end in asked)
    assert fetched < 1.3 * path.stat().st_size / 3
    audio.decode(uri, info, 8.0, 16.0)
    assert sum(end - start for start, end in asked) < 1.2 * fetched  # it also listens a little before and after
