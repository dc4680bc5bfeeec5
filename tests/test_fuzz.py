"""Whatever bytes or texts come in: a result or the reader's own error, nothing outside the folder, no crash."""

from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from affect.corpus import affwild2, audio, hints, images, video
from affect.corpus.video import MediaError
from affect.evaluation.submission import read_template
from affect.learning import checkpoint
from affect.storage import files
from affect.storage.extracted import Extracted
from affect.storage.store import Store, probe_key, unit_key
from tests.media import Film, Sound, tone, write

FORMATS = ["a.mp4", "a.mkv", "a.avi", "a.ts", "a.flv", "a.webm", "a.gif"]
KEYS = ["face/a/b/00000.parquet", "tracks/a.arrow", "waveforms/a.rows.arrow"]
SHORT = settings(max_examples=60, deadline=None, derandomize=True)
LONG = settings(max_examples=120, deadline=None, derandomize=True)

edits = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=8)), max_size=12)
"""Where, as a share of the file, and what is written over what stands there."""


def edited(content: bytes, changes: list[tuple[float, bytes]], end: float) -> bytes:
    changed = bytearray(content)
    for share, new in changes:
        at = int(share * len(changed))
        changed[at : at + len(new)] = new
    return bytes(changed[: int(end * len(changed))] if end < 0.9 else changed)


@lru_cache
def recorded(name: str) -> bytes:
    codecs = {".webm": "libvpx-vp9", ".gif": "gif", ".avi": "mpeg4"}
    kind = Path(name).suffix
    base = {".gif": Fraction(1, 100), ".avi": Fraction(1, 25)}.get(kind, Fraction(1, 1000))
    sound = Sound(samples=tone(16_000, 0.4)[None], rate=16_000, codec="mp2" if kind in (".ts", ".avi") else "aac")
    with TemporaryDirectory() as folder:
        film = Film(
            name=name,
            ticks=[40 * k for k in range(10)],
            codec=codecs.get(kind, "libx264"),
            pix_fmt="rgb8" if kind == ".gif" else "yuv420p",
            options={"g": "4"},
            time_base=base,
            sound=None if kind in (".gif", ".webm") else sound,
        )
        return write(Path(folder), film).read_bytes()


def look(path: Path) -> None:
    """All that the extraction asks of a video."""
    info = video.probe(str(path), path.name)
    assert len(info.time_s) and (np.diff(info.time_s) > 0).all() and np.isfinite(info.time_s).all()
    numbers = [number for number, _ in video.decode(str(path), info, 0, 20)]
    assert numbers == sorted(set(numbers)) and all(0 <= number < len(info.time_s) for number in numbers)
    if info.has_audio:
        assert audio.decode(str(path), info, 0.0, 1.0).wave.shape == (16_000,)


@pytest.mark.parametrize("name", FORMATS)
@LONG
@given(changes=edits, end=st.floats(0, 2))
@example(changes=[(0.3176874850201979, b"\x00\x80")], end=1.0)  # GIF's decoder says that it is not permitted
@example(changes=[(1.0, b"\x00\x00\x00"), (0.72389849964865, b"0")], end=1.0)  # FLV's frames come twice
@example(changes=[], end=0.25)  # a WebM that ends in its header says that a disk is broken
def test_a_video_is_read_or_refused(name: str, changes: list[tuple[float, bytes]], end: float):
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(edited(recorded(name), changes, end))
        try:
            look(path)
        except MediaError as error:
            assert str(error) and "\n" not in str(error)


@pytest.mark.parametrize("key", KEYS)
@LONG
@given(changes=edits, end=st.floats(0, 2))
def test_an_object_is_read_or_damaged(key: str, changes: list[tuple[float, bytes]], end: float):
    with TemporaryDirectory() as folder:
        store = Store(folder)
        table = pa.table({"x": np.arange(300.0), "y": [f"row {n % 7}" for n in range(300)]})
        store.put(key, Extracted(table, "degraded", "dark"))
        whole = (Path(folder) / key).read_bytes()
        torn = edited(whole, changes, end)
        (Path(folder) / key).write_bytes(torn)
        wrong = store.check(key)
        if not wrong:
            found = store.get(key)
            assert found.table.replace_schema_metadata().equals(table)
            assert torn == whole or (found.status, found.reason) == ("degraded", "dark")
        try:
            if key.endswith(".parquet"):
                store.outcome(key)
        except ValueError as error:
            assert wrong and "damaged" in str(error)


@SHORT
@given(changes=edits, end=st.floats(0, 2), other=st.binary(max_size=200))
def test_a_checkpoint_is_read_or_refused(changes: list[tuple[float, bytes]], end: float, other: bytes):
    whole = checkpoint.encode({"weight": torch.arange(12.0).reshape(3, 4)}, {"epoch": 3})
    for content in (edited(whole, changes, end), other):
        try:
            checkpoint.decode(content)
        except ValueError as error:
            assert str(error)


lines = st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=6).map("\n".join)
numbers = st.lists(st.tuples(st.floats(), st.floats()), max_size=6).map(
    lambda rows: "valence,arousal\n" + "\n".join(f"{v},{a}" for v, a in rows)
)


@SHORT
@given(text=lines | numbers)
def test_a_label_is_read_or_refused(text: str):
    try:
        found = affwild2.parse_annotation(text, "a.txt")
    except affwild2.LabelError as error:
        assert "a.txt" in str(error) and "\n" not in str(error)
    else:
        assert found.ndim == 2 and (np.isnan(found) | (np.abs(found) <= 1)).all()


template = st.lists(st.text(max_size=9) | st.integers().map(lambda n: f"video/{n:05d}.jpg"), max_size=6).map(
    lambda rows: "image_location,valence,arousal\n" + "\n".join(rows)
)


@SHORT
@given(text=lines | template)
def test_a_template_is_read_or_refused(text: str):
    try:
        rows = read_template(text, "template.txt")
    except ValueError as error:
        assert "template.txt" in str(error)
    else:
        assert all(row.frame >= 0 for row in rows)


@SHORT
@given(text=lines | st.lists(st.text(max_size=9), max_size=5).map(lambda rows: "track,frame,x,y\n" + "\n".join(rows)))
def test_hints_and_manifests_are_read_or_refused(text: str):
    for read in (hints.parse, _manifest):
        try:
            read(text, "hints.csv")
        except (ValueError, OSError) as error:
            assert str(error)


def _manifest(text: str, name: str) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / name).write_text(text, encoding="utf-8", errors="surrogatepass")
        images.read_manifest(f"{folder}/{name}")


@SHORT
@given(path=st.text(st.characters(codec="utf-8"), max_size=80), clip=st.integers(0, 99))
def test_no_name_leads_out_of_the_store(path: str, clip: int):
    for key in (unit_key("face", "0" * 16, path, "f" * 12, clip), probe_key(path, 1, "1")):
        place = Path(files.join("/store", key))
        assert place == place.resolve() and place.is_relative_to("/store") and len(place.name) < 100
