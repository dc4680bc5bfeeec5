"""Weights by name: found, refused, and told apart."""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from affect import weights
from affect.console import tiny
from affect.storage import files
from affect.weights import FILES, Source, WeightsError
from tests.jobs import LIMIT_S

ROOT = Path(__file__).parents[1]
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
    files.cache().mkdir(exist_ok=True)
    return files.cache() / NAME


def test_a_file_in_the_cache_is_used_if_its_hash_is_right():
    cached().write_bytes(GOOD)
    assert weights.file(NAME) == cached()
    assert [path.name for path in files.cache().iterdir()] == [NAME]  # nothing is written: a cache may be read-only


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


def test_a_file_of_unknown_hash_is_recorded_at_first_use_and_compared_ever_after(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(FILES, NAME, Source("", "http://127.0.0.1:9/a"))
    with pytest.raises(WeightsError, match=rf"curl -L -o {NAME} http://127\.0\.0\.1:9/a and put it at {cached()}"):
        weights.file(NAME)
    monkeypatch.setattr(weights, "_from_url", lambda _: GOOD)
    assert weights.file(NAME).read_bytes() == GOOD
    record = cached().with_name(f"{NAME}.sha256")
    assert record.read_text() == hashlib.sha256(GOOD).hexdigest()
    cached().write_bytes(b"others")
    with pytest.raises(WeightsError, match=rf"at its first use it was .*; if that is meant, delete {record}"):
        weights.file(NAME)
    record.unlink()
    assert weights.file(NAME).read_bytes() == b"others" and record.exists()


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


def in_hub_cache(home: Path, checkpoint: Path) -> None:
    """Lay a checkpoint down as huggingface_hub keeps what it fetched."""
    top = home / "hub" / "models--someone--tiny-qwen"
    shutil.copytree(checkpoint, top / "snapshots" / "0123abcd")
    (top / "refs").mkdir()
    (top / "refs" / "main").write_text("0123abcd")


def ask_hub(home: Path, name: str = "someone/tiny-qwen", revision: str = "main", **environment: str) -> str:
    """What a process with this hub and cache finds or says."""
    code = (
        "import sys\nfrom affect import weights\n"
        "try: print(weights.checkpoint(sys.argv[1], sys.argv[2], 'qwen3_vl'))\n"
        "except weights.WeightsError as error: print('refused:', error)"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", code, name, revision],
        env={**clean, "HF_HOME": str(home), "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 1, done
    return done.stdout.strip()


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """A hub of which one repository is gated, one unknown, and one lacks a revision."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = next((n for n in ("gated", "unknown", "unrevised") if n in self.path), "unknown")
            status, code = {
                "gated": (403, "GatedRepo"),
                "unknown": (404, "RepoNotFound"),
                "unrevised": (404, "RevisionNotFound"),
            }[name]
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_hub_id_that_is_cached_is_found_without_a_network(tmp_path: Path):
    tiny.make_qwen(tmp_path / "made")
    in_hub_cache(tmp_path / "home", tmp_path / "made")
    found = ask_hub(tmp_path / "home", HF_HUB_OFFLINE="1")
    assert found.endswith("snapshots/0123abcd") and Path(found, "model.safetensors").is_file()
    assert ask_hub(tmp_path / "home", HF_ENDPOINT="http://127.0.0.1:9") == found  # nor with one that is down


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("someone/gated", "is gated: accept its terms on its page and set HF_TOKEN"),
        ("someone/unknown", "does not exist, or is private"),
        ("someone/unrevised", "there is no such revision"),
    ],
)
def test_why_a_hub_does_not_give_weights_is_said_in_one_line(name: str, expected: str, hub: str, tmp_path: Path):
    said = ask_hub(tmp_path, name, "v1", HF_ENDPOINT=hub)
    assert said.startswith(f"refused: {name} (revision v1) of {hub}") and expected in said


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_a_hub_that_cannot_be_reached_and_an_empty_cache_say_how_to_get_weights(
    environment: dict[str, str], tmp_path: Path
):
    said = ask_hub(tmp_path, "someone/tiny-qwen", "v1", **environment)
    assert str(tmp_path) in said and "hf download someone/tiny-qwen --revision v1 --local-dir FOLDER" in said


def test_a_folder_that_is_not_there_and_one_without_a_model_are_told_apart(tmp_path: Path):
    with pytest.raises(WeightsError, match="no such folder"):
        weights.checkpoint(str(tmp_path / "nothing"), "main", "qwen3_vl")
    with pytest.raises(WeightsError, match=r"no config\.json that can be read"):
        weights.checkpoint(str(tmp_path), "main", "qwen3_vl")
