"""Objects are whole or absent, and the same content gives the same bytes."""

import io
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from affect.console.verify import verify
from affect.settings.address import address
from affect.settings.extraction import Behavior, Face
from affect.storage import files
from affect.storage.attempts import Attempts
from affect.storage.columns import list_column, matrix
from affect.storage.extracted import Extracted
from affect.storage.state import NUM_PARTITIONS, State, States, groups, partition_of
from affect.storage.store import Outcome, Store, encode, slug, unit_key

TABLE = pa.table({"frame": [1, 2, 3]})


def test_a_unit_comes_back_with_its_status_and_reason(tmp_path: Path):
    store = Store(str(tmp_path))
    outcome = store.put("face/a/b/00000.parquet", Extracted(TABLE, "degraded", "no face found"))
    assert (outcome.status, outcome.reason, outcome.rows) == ("degraded", "no face found", 3)
    assert store.outcome("face/a/b/00000.parquet") == outcome
    assert store.get("face/a/b/00000.parquet").table["frame"].to_pylist() == [1, 2, 3]
    assert store.keys("face") == {"face/a/b/00000.parquet"} and store.keys("audio") == set()


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_the_same_unit_gives_the_same_bytes(kind: str, tmp_path: Path):
    store = Store(str(tmp_path))
    for name in ("a", "b"):
        store.put(f"{name}.{kind}", Extracted(TABLE))
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


@pytest.mark.parametrize("place", ["{}", "memory://{}"])
def test_what_is_trained_on_is_read_without_a_copy_from_a_disk(place: str, tmp_path: Path):
    store = Store(place.format(tmp_path))
    values = np.arange(300_000, dtype=np.float32).reshape(-1, 100)
    store.put("tracks/a.arrow", Extracted(pa.table({"x": list_column(values, pa.float32())})))
    before = pa.total_allocated_bytes()
    found = store.get("tracks/a.arrow").table
    first, again = matrix(found["x"]), matrix(found["x"])
    assert (first == values).all() and np.shares_memory(first, again)
    if place == "{}":
        assert pa.total_allocated_bytes() - before < 10_000
    assert store.keys("tracks") == {"tracks/a.arrow"}


def test_a_write_that_fails_leaves_nothing_and_names_path_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="cannot write 5 bytes") as caught:
        files.write(str(tmp_path / "deep" / "x"), b"12345")
    assert str(tmp_path / "deep" / "x") in str(caught.value)
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_loses_nothing_and_goes_on_after_space_is_made(small_disk: Path):
    store = Store(str(small_disk / "store"))
    table = pa.table({"x": np.random.default_rng(0).normal(size=15_000)})
    (small_disk / "filler").write_bytes(bytes(700_000))
    number, said = 0, ""
    while not said:
        try:
            store.put(f"face/{number}.parquet", Extracted(table))
            number += 1
        except OSError as error:
            said = str(error)
    assert "cannot write" in said and "No space left" in said and f"{small_disk}/store/face/{number}.parquet" in said
    left = sorted(path.name for path in (small_disk / "store").rglob("*") if path.is_file())
    assert number > 0 and left == [f"{n}.parquet" for n in range(number)]
    assert all(store.check(key) == "" for key in store.keys())
    (small_disk / "filler").unlink()
    store.put(f"face/{number}.parquet", Extracted(table))
    assert len(store.keys()) == number + 1 and all(store.check(key) == "" for key in store.keys())


def test_a_store_that_is_read_only_says_so_in_one_line(small_disk: Path):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match=r"cannot write \d+ bytes \(Read-only file system\)"):
        Store(str(small_disk)).put("a.parquet", Extracted(TABLE))


def test_attempts_count_within_a_run_and_are_forgotten_on_success(tmp_path: Path):
    store = Store(str(tmp_path))
    first, second = Attempts(store, "run1"), Attempts(store, "run2")
    assert [first.begin("k"), first.begin("k"), second.begin("k")] == [0, 1, 0]
    first.end("k")
    assert first.begin("k") == 0


def test_what_killed_runs_left_behind_goes_after_a_day(tmp_path: Path):
    store, now = Store(str(tmp_path)), int(time.time())
    names = {"0123456789ab": False, f"{now - 90_000:010d}-ab": False, f"{now - 3_600:010d}-cd": True}
    for name in names:
        Attempts(store, name).begin("k")
    Attempts.new(store).begin("k")
    left = {path.name for path in (tmp_path / "_attempts").iterdir()}
    assert len(left) == 2 and all((name in left) == kept for name, kept in names.items())


def test_odd_names_are_harmless_and_stay_apart():
    assert slug("a/../ü b%2f'.mp4") == "b-2f"
    assert slug("///.mp4") == "video" and len(slug("x" * 300 + ".mp4")) == 40
    assert unit_key("face", "0" * 16, "x.mp4", "f" * 12, 7) == f"face/{'0' * 16}/x-{'f' * 12}/00007.parquet"


def test_an_address_follows_what_changes_numbers_and_not_who_computes_them():
    assert address(Face()) == address(Face(num_cpus=4.0, max_actors=8))
    assert address(Face()) != address(Face(min_confidence=0.5))
    assert address(Behavior()) != address(Behavior(micro_batch=8))
    one, eight, many = (Face(micro_batch=n).addressed() for n in (0, 8, 128))
    assert one == eight != many
    assert (Face().batch_size("cpu"), Face().batch_size("cuda"), Face(micro_batch=5).batch_size("cuda")) == (8, 128, 5)
    assert address(Face(), "a") != address(Face(), "b")


KEYS = ["face/a/b/00000.parquet", "tracks/a.arrow", "waveforms/a.rows.arrow"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("seed", range(6))
def test_what_is_damaged_is_found(tmp_path: Path, key: str, seed: int):
    rng = np.random.default_rng(seed)
    store, table = Store(str(tmp_path)), pa.table({"x": rng.normal(size=(400)), "y": rng.integers(0, 9, 400)})
    store.put(key, Extracted(table))
    assert store.check(key) == "" and store.get(key).table.replace_schema_metadata().equals(table)
    path = tmp_path / key
    whole = path.read_bytes()
    kinds = [whole[: int(len(whole) * rng.random())], b"", whole + b"more", b"x" * len(whole)]
    for content in kinds if seed == 0 else [bytes(_flipped(whole, rng))]:
        path.write_bytes(content)
        wrong = store.check(key)
        if not wrong:  # padding, or a second copy of what stands elsewhere
            assert content != whole and store.get(key).table.replace_schema_metadata().equals(table)
        else:
            assert str(path) in wrong and "damaged" in wrong and "\n" not in wrong


def _flipped(whole: bytes, rng: np.random.Generator) -> bytearray:
    """One bit of what the file holds; its last part says where things are, and is read too."""
    changed = bytearray(whole)
    changed[int(rng.integers(8, len(whole) // 2))] ^= 1 << int(rng.integers(8))
    return changed


def test_a_store_of_an_earlier_version_can_be_read(tmp_path: Path):
    note = {b"affect": b'{"status": "ok", "reason": ""}'}
    table = pa.table({"x": [1, 2]}).replace_schema_metadata(note)
    store, path = Store(str(tmp_path)), tmp_path / "face" / "a.parquet"
    path.parent.mkdir()
    path.write_bytes(encode(table))
    assert store.check("face/a.parquet") == "" and store.get("face/a.parquet").status == "ok"
    assert store.outcome("face/a.parquet") == Outcome("ok", "", 2)


def test_a_store_is_verified_and_what_is_deleted_is_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    store = Store(str(tmp_path))
    assert verify(store) == 1
    for key in KEYS:
        store.put(key, Extracted(pa.table({"x": [1.0]})))
    assert verify(store) == 0 and "3 objects, 0 damaged" in capsys.readouterr().out
    (tmp_path / KEYS[0]).write_bytes(b"torn")
    assert verify(store) == 3
    said = capsys.readouterr().out
    assert f"{tmp_path / KEYS[0]}: damaged" in said and "3 objects, 1 damaged" in said


@pytest.mark.parametrize("place", ["{}", "memory://{}"])
def test_a_note_of_states_that_is_damaged_is_made_anew(place: str, tmp_path: Path):
    store = Store(place.format(tmp_path))
    for number in range(40):
        store.put(f"face/{number}.parquet", Extracted(TABLE))
    wanted = [f"face/{number}.parquet" for number in range(50)]
    states = States(store)
    assert len(states.of("face", wanted)) == 40
    states.forget(save=True)
    [name] = [name for name, _, _ in files.walk(files.join(store.uri, "_state"))]
    uri = files.join(store.uri, "_state", name)
    whole, rng = files.read(uri), np.random.default_rng(0)
    assert len(States(store)._partition(int(name[:2]))) == 40
    for _ in range(60):
        torn = bytearray(whole)
        at = int(rng.integers(4, len(whole) - 16))
        torn[at : at + 16] = rng.bytes(16)
        files.write(uri, bytes(torn[: rng.integers(1, len(torn))] if rng.random() < 0.3 else torn))
        again = States(store).of("face", wanted)
        assert {key: state.outcome.status for key, state in again.items()} == dict.fromkeys(wanted[:40], "ok")


def test_states_are_kept_by_partition_and_rows_of_another_job_are_kept_too(tmp_path: Path):
    store, names = Store(str(tmp_path)), [f"talk {number}.mp4" for number in range(300)]
    keys = [unit_key("face", "0" * 16, name, f"{number:012x}", 0) for number, name in enumerate(names)]
    for key in keys:
        store.put(key, Extracted(TABLE))
    (tmp_path / "face" / os.fsdecode(b"caf\xe9.parquet")).touch()  # a name that no table of ours can hold
    one, two = States(store), States(store)
    assert len(one.of("face", keys[:200])) == 200 and len(two.of("face", keys[100:])) == 200
    one.forget(save=True)
    two.forget(save=True)
    files_of_cache = sorted(path.name for path in (tmp_path / "_state").iterdir())
    assert 40 < len(files_of_cache) <= NUM_PARTITIONS
    for key in keys:  # with the state of before under its version, so that a read would fail
        place, when = tmp_path / key, (tmp_path / key).stat().st_mtime_ns
        place.write_bytes(b"")
        os.utime(place, ns=(when, when))
    known = States(store).of("face", keys)
    assert list(map(known.get, keys)) == [State(Outcome("ok", "", TABLE.num_rows), None)] * 300
    (tmp_path / keys[7]).unlink()
    assert keys[7] not in States(store).of("face", keys)


def test_groups_have_whole_partitions_and_every_video_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("affect.storage.state.MAX_TOGETHER", 50)
    paths = [f"folder/video {number}.mp4" for number in range(1000)]
    found = groups(paths)
    assert sorted(index for group in found for index in group) == list(range(1000)) and len(found) > 10
    of = [{partition_of(slug(paths[index])) for index in group} for group in found]
    assert sum(map(len, of)) == len(set().union(*of))
    assert all(len(group) <= 50 or len(of[i]) == 1 for i, group in enumerate(found))


@pytest.mark.parametrize("again", [False, True])
def test_what_is_kept_says_how_it_ended(tmp_path: Path, again: bool):
    store = Store(str(tmp_path))
    assert store.put("face/a.parquet", Extracted(TABLE)).status == "ok"
    found = store.put("face/a.parquet", Extracted(TABLE, "failed", "x"), replace=again)
    assert found.status == ("failed" if again else "ok") == store.outcome("face/a.parquet").status
    assert [path.name for path in (tmp_path / "face").iterdir()] == ["a.parquet"]


NOTES = [b"{}", b"[]", b"null", b'{"status": "fine", "reason": ""}', b'{"status": "ok", "reason": 1}', b"[" * 100_000]


@pytest.mark.parametrize("note", NOTES, ids=lambda note: note[:20].decode())
@pytest.mark.parametrize("key", KEYS)
def test_a_note_that_is_none_of_ours_is_damage(note: bytes, key: str, tmp_path: Path):
    store, table = Store(str(tmp_path)), pa.table({"x": [1.0]}).replace_schema_metadata({b"affect": note})
    files.write(store.uri_of(key), encode(table) if key.endswith(".parquet") else _arrow(table))
    assert "damaged" in store.check(key)
    with pytest.raises(ValueError, match="damaged"):
        store.get(key)
    if key.endswith(".parquet"):  # said of it, and no reason to end: others are not harmed
        [state] = States(store).of("face", [key]).values()
        assert state.outcome.status == "failed" and f"{key}: damaged" in state.outcome.reason


def _arrow(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def test_damage_that_points_out_of_a_buffer_ends_nothing(tmp_path: Path):
    """A flipped bit in the offsets of a text, which once ended the process."""
    store, table = Store(str(tmp_path)), pa.table({"x": np.arange(30.0), "y": [f"row {n % 7}" for n in range(30)]})
    for key in KEYS[1:]:
        store.put(key, Extracted(table))
        whole = (tmp_path / key).read_bytes()
        for at in range(0, len(whole), 7):
            (tmp_path / key).write_bytes(whole[:at] + bytes([whole[at] ^ 128]) + whole[at + 1 :])
            if not store.check(key):
                assert store.get(key).table.replace_schema_metadata().equals(table)


def test_a_probe_of_other_columns_and_one_that_leads_elsewhere_are_damaged(tmp_path: Path):
    store = Store(str(tmp_path))
    store.put("videos/a.parquet", Extracted(pa.table({"x": [1.0]})))
    assert "no columns of a probe" in store.check("videos/a.parquet")
    [state] = States(store).of("videos", ["videos/a.parquet"]).values()
    assert state.head is None and state.outcome.status == "failed" and "damaged" in state.outcome.reason
    with pytest.raises(ValueError, match="fingerprint"):
        unit_key("face", "0" * 16, "a.mp4", "x/../../../../..", 0)
