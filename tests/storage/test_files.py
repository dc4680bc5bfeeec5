"""Objects on a disk and in a bucket-like file system: whole or absent, and marked by what they hold."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from affect.storage import files, listing
from affect.storage.files import MIB


@pytest.fixture(params=["disk", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder on a disk, a prefix in memory."""
    return str(tmp_path / "root") if request.param == "disk" else f"memory://{tmp_path.name}"


def test_what_is_written_can_be_read_listed_replaced_and_deleted(root: str):
    uri = files.join(root, "deep", "er", "ä [1]*.bin")
    assert not files.exists(uri)
    files.write(uri, b"one")
    files.write(uri, b"three")
    assert files.exists(uri) and files.read(uri) == b"three"
    assert [(name, size) for name, size, _ in files.walk(root)] == [("deep/er/ä [1]*.bin", 5)]
    files.delete(uri)
    files.delete(uri)
    assert not files.exists(uri) and list(files.walk(root)) == []


def test_a_missing_object_is_not_found(root: str):
    with pytest.raises(FileNotFoundError):
        files.read(files.join(root, "nothing"))
    assert list(files.walk(files.join(root, "nowhere"))) == []


def test_a_walk_is_sorted_and_relative(root: str):
    for name in ["b", "a/z", "a/b/c", "a.b", "a/a"]:
        files.write(files.join(root, name), b"")
    names = [name for name, _, _ in files.walk(root)]
    assert names == sorted(names) and set(names) == {"b", "a/z", "a/b/c", "a.b", "a/a"}
    assert [name for name, _, _ in files.walk(root + "/")] == names
    assert [name for name, _, _ in files.walk(files.join(root, "a"))] == ["a", "b/c", "z"]


def test_an_object_at_the_very_root_is_that_object():
    files.write("memory://alone.bin", b"here")
    assert files.exists("memory://alone.bin") and files.read("memory://alone.bin") == b"here"
    assert files.resolve_parent("/alone.bin")[1] == "/alone.bin"
    assert files.resolve_parent("memory://a/b/c")[1] == "/a/b/c"


def test_an_interrupted_write_leaves_the_old_object_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    uri = str(tmp_path / "a.bin")
    files.write(uri, b"old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for step in ("replace", "fsync"):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(os, step, interrupt)
            files.write(uri, b"new")
    assert files.read(uri) == b"old" and os.listdir(tmp_path) == ["a.bin"]


def test_a_place_that_cannot_be_written_is_named_with_the_bytes(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"cannot write 3 bytes .*file/a\.bin"):
        files.write(str(tmp_path / "file" / "a.bin"), b"abc")


def test_an_unknown_protocol_is_named():
    with pytest.raises(ValueError, match="nosuch"):
        files.read("nosuch://bucket/key/a.bin")


def test_a_relative_path_is_one_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        files.write("a.bin", name.encode())
        assert files.read("a.bin") == name.encode() == (tmp_path / name / "a.bin").read_bytes()
        assert [found for found, _, _ in files.walk(".")] == ["a.bin"]


def test_a_fingerprint_changes_with_name_size_beginning_and_end():
    content = bytearray(3 * MIB)

    def mark(content: bytes, name: str = "a.bin") -> str:
        return files.fingerprint(io.BytesIO(content), len(content), name)

    first = mark(bytes(content))
    seen = {first, mark(bytes(content), "b.bin"), mark(bytes(content) + b"\0"), mark(b""), mark(b"\0")}
    for at in (0, MIB - 1, 2 * MIB, 3 * MIB - 1):
        content[at] = 1
        seen.add(mark(bytes(content)))
        content[at] = 0
    assert len(seen) == 9 and all(len(value) == 12 for value in seen)
    assert mark(bytes(content)) == first


def test_a_digest_follows_names_and_content(tmp_path: Path):
    def digest(**contents: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, text in contents.items():
            files.write(str(folder / name), text.encode())
        return files.digest(folder)

    assert digest(a="1", b="2") == digest(b="2", a="1")
    assert len({digest(a="1", b="2"), digest(a="1", b="3"), digest(a="1", c="2"), digest(a="12"), digest(a="1")}) == 5


def test_a_tools_hidden_notes_do_not_change_what_a_folder_is(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = files.digest(tmp_path)
    notes = tmp_path / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    (notes / "model.safetensors.metadata").write_text("fetched at noon")
    (tmp_path / ".gitattributes").write_text("*.safetensors")
    assert files.digest(tmp_path) == before
    (tmp_path / "config.json").write_text("{}")
    assert files.digest(tmp_path) != before


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket ``shared`` of a server on this machine."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        bucket = boto3.resource("s3").create_bucket(Bucket="shared")
        yield bucket
        bucket.objects.delete()  # the process keeps them for the next server
    finally:
        files.resolve.cache_clear()
        S3FileSystem.clear_instance_cache()
        server.stop()


def test_a_bucket_shows_what_others_wrote_after_it_was_listed(bucket: Any):
    bucket.put_object(Key="store/a.bin", Body=b"one")
    assert [name for name, _, _ in files.walk("s3://shared/store")] == ["a.bin"]
    bucket.put_object(Key="store/b.bin", Body=b"two")
    assert files.read("s3://shared/store/b.bin") == b"two" and files.exists("s3://shared/store/b.bin")
    assert [name for name, _, _ in files.walk("s3://shared/store")] == ["a.bin", "b.bin"]


def test_a_long_listing_of_a_bucket_is_split_and_whole(bucket: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listing, "PAGE", 7)
    names = [f"video{number:03d}-ab/{clip}.parquet" for number in range(0, 60, 3) for clip in range(2)]
    names += ["v", "video00", "video00/a b", "ä/ö", "ä/ö/\U0001f600", "z" * 200, "video0-", "~"]
    for name in names:
        bucket.put_object(Key=f"store/{name}", Body=name.encode())
    bucket.put_object(Key="store/folder/", Body=b"")
    bucket.put_object(Key="store2/no", Body=b"")
    found = list(files.walk("s3://shared/store"))
    assert [(name, size) for name, size, _ in found] == sorted((name, len(name.encode())) for name in names)
    assert len({version for _, _, version in found}) == len(names)
    assert [name for name, _, _ in files.walk("s3://shared/store/video00")] == ["a b"]
    assert [name for name, _, _ in files.walk("s3://shared/store/video0-")] == ["video0-"]
    assert len(list(files.walk("s3://shared"))) == len(names) + 1


class Keys:
    """A bucket of keys that answers like S3, and counts its answers."""

    def __init__(self, keys: list[str]) -> None:
        """Sorts the keys."""
        self.keys, self.calls = sorted(keys), 0

    def call_s3(self, _: str, **asked: Any) -> dict[str, Any]:
        """One page of a listing."""
        self.calls += 1
        found = [key for key in self.keys if key.startswith(asked["Prefix"]) and key > asked.get("StartAfter", "")]
        page = [{"Key": key, "Size": 1, "ETag": key} for key in found[: asked["MaxKeys"]]]
        return {"IsTruncated": len(found) > len(page), **({"Contents": page} if page else {})}


@pytest.mark.parametrize("letters", ["ab", "0123456789", "abc/-é\U0001f600"])
def test_any_keys_are_listed_once_and_in_order(letters: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listing, "PAGE", 5)
    rng = np.random.default_rng()
    for size in (0, 1, 5, 6, 40, 300):
        keys = {"p/" + "".join(rng.choice(list(letters), rng.integers(1, 9))) for _ in range(size)}
        found = [name for name, _, _ in listing.walk_bucket(Keys(list(keys)), "bucket", "p/")]
        assert found == sorted(key[2:] for key in keys if not key.endswith("/"))


def test_numbered_videos_take_little_more_than_their_pages():
    keys = Keys([f"face/video{number:06d}-0123456789ab/00000.parquet" for number in range(30_000)])
    assert sum(1 for _ in listing.walk_bucket(keys, "bucket", "face/")) == 30_000
    assert keys.calls < 100


def test_links_that_lead_back_or_nowhere_are_no_files(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.mp4").write_bytes(b"a")
    for name, target in (("self.mp4", "self.mp4"), ("gone.mp4", "nowhere"), ("again", "."), ("deep/up", "..")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "linked").symlink_to("deep/a.mp4")
    assert [name for name, _, _ in files.walk(str(tmp_path))] == ["deep/a.mp4", "linked"]


def test_what_a_link_that_leads_nowhere_is_called_can_be_written(tmp_path: Path):
    (tmp_path / "a").symlink_to("nowhere")
    assert files.write(str(tmp_path / "a"), b"x", replace=False) and files.read(str(tmp_path / "a")) == b"x"


def test_links_that_go_round_through_two_folders_are_followed_once(tmp_path: Path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.mp4").write_bytes(b"x")
    (tmp_path / "a" / "to_b").symlink_to("../b")
    (tmp_path / "b" / "to_a").symlink_to("../a")
    found = [name for name, _, _ in files.walk(str(tmp_path))]
    assert found == ["a/a.mp4", "a/to_b/b.mp4", "b/b.mp4", "b/to_a/a.mp4"]
