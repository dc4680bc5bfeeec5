"""Weights by name: found, refused, and told apart."""

import hashlib
from pathlib import Path

import pytest

from affect import weights
from affect.weights import FILES, Source, WeightsError

GOOD = b"the right bytes"
NAME = "made_up.task"


@pytest.fixture(autouse=True)
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file that can be had nowhere, and an empty cache."""
    source = Source(hashlib.sha256(GOOD).hexdigest(), "http://127.0.0.1:9/a", "nosuch", "0", NAME)
    monkeypatch.setitem(FILES, NAME, source)
    monkeypatch.setenv("AFFECT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def offline(_: Source) -> bytes:
        raise OSError("offline")

    monkeypatch.setattr(weights, "_from_url", offline)
    monkeypatch.setattr(weights, "_from_package", offline)


def cached() -> Path:
    weights.cache().mkdir(exist_ok=True)
    return weights.cache() / NAME


def test_a_file_in_the_cache_is_used_if_its_hash_is_right():
    cached().write_bytes(GOOD)
    assert weights.file(NAME) == cached()


def test_a_file_in_the_cache_with_another_hash_is_not_used():
    cached().write_bytes(GOOD + b"!")
    with pytest.raises(WeightsError) as raised:
        weights.file(NAME)
    message = str(raised.value)
    assert all(part in message for part in (NAME, str(cached()), "http://127.0.0.1:9/a", "offline"))
    assert "\n" not in message


def test_what_is_fetched_is_checked_and_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights, "_from_url", lambda _: b"an error page")
    monkeypatch.setattr(weights, "_from_package", lambda _: GOOD)
    assert weights.file(NAME).read_bytes() == cached().read_bytes() == GOOD


def test_what_is_fetched_with_another_hash_is_not_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights, "_from_url", lambda _: b"an error page")
    with pytest.raises(WeightsError, match="sha256 differs"):
        weights.file(NAME)
    assert not cached().exists()


def test_a_path_that_exists_comes_first_and_is_known_by_its_own_content(tmp_path: Path):
    before = weights.identity(NAME)
    (tmp_path / NAME).write_bytes(b"mine")
    assert weights.file(NAME) == Path(NAME) and weights.identity(NAME) != before
    (tmp_path / NAME).write_bytes(GOOD)
    assert weights.identity(NAME) == before


@pytest.mark.parametrize("name", ["nosuch.task", "/nowhere/a.task"])
def test_an_unknown_file_and_a_missing_folder_are_one_clear_line(name: str):
    for call in (weights.file, weights.folder):
        with pytest.raises(WeightsError, match=f"{name}: no such") as raised:
            call(name)
        assert "\n" not in str(raised.value)


def test_the_identity_of_a_folder_follows_its_content_and_not_its_name(tmp_path: Path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
    a, b, c = (weights.identity(str(tmp_path / name)) for name in "abc")
    assert a == b != c


def test_the_identity_of_a_hub_id_is_its_revision():
    assert weights.identity("owner/name", "abc") != weights.identity("owner/name", "abd")


@pytest.mark.parametrize("name", ["grada", "./x/grada", "/x/grada", "../grada", "a/b/c"])
def test_what_is_neither_here_nor_a_hub_id_has_no_identity(name: str):
    with pytest.raises(WeightsError, match=f"{name}: no such folder or file"):
        weights.identity(name)
