"""``jobs/benchmark.py gpu``: its checks pass on a CPU without most packages, failures and stopped parts are named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.benchmarks import gpu
from jobs.benchmarks.gpu.book import Book

ROOT = Path(__file__).parents[1]
ABSENT = "ray av mediapipe tyro rich optuna skimage matplotlib defusedxml onnx onnxruntime tensorboard"
"""Packages that a machine for the check does not need."""
HIDE = f"""
import importlib.machinery

find = importlib.machinery.PathFinder.find_spec


def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {ABSENT.split()} else find(name, path, target)


importlib.machinery.PathFinder.find_spec = find_spec
"""
"""Hides the packages from imports, as if they were not installed."""
MACHINE = dict.fromkeys(("device", "driver", "torch", "cuda", "transformers", "python"), "?")
WRITE = "import json, pathlib; pathlib.Path({rows!r}).write_text(json.dumps([{row}])); "
ROW = {"part": "models", "name": "early", "value": 0.5, "unit": "", "limit": "<= 1", "ok": True}


def benchmark(*flags: str, hidden: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "jobs/benchmark.py", "gpu", *flags]
    paths = [str(path) for path in (hidden, ROOT) if path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=1800)


@pytest.mark.slow
def test_all_checks_pass_on_a_cpu_without_the_packages_of_other_stages(tmp_path: Path):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(HIDE)
    out = tmp_path / "out"
    flags = ("--device", "cpu", "--quick", "--minutes", "20", "--out", str(out))
    end = benchmark(*flags, hidden=tmp_path / "hidden")
    assert end.returncode == 0, end.stdout[-5000:] + end.stderr[-2000:]
    found = json.loads((out / "gpu.json").read_text())
    rows = found["rows"]
    assert {part["part"]: part["outcome"] for part in found["parts"]} == dict.fromkeys(gpu.LIMITS_S, "done")
    assert not [row for row in rows if row["ok"] is False]
    assert len([row for row in rows if row["ok"]]) > 40
    assert {row["name"] for row in rows if str(row["value"]).startswith("left out")} == {"kernel"}
    assert set(gpu.LIMITS_S) == {row["part"] for row in rows}
    assert f"{len([row for row in rows if row['ok']])} ok, 0 failed" in end.stdout


def test_without_cuda_it_ends_in_one_line():
    end = benchmark()
    expected = "no CUDA device is seen; --device cpu --quick tries the checks themselves\n"
    assert (end.returncode, end.stdout, end.stderr) == (1, "", expected)


def broken() -> None:
    raise ValueError("planted")


def absent() -> None:
    raise ModuleNotFoundError("No module named 'av'", name="av")


def unknown() -> None:
    raise ModuleNotFoundError("No module named 'torchvision'", name="torchvision")


def test_a_failed_check_is_a_row_and_the_next_one_goes_on(tmp_path: Path):
    book = Book("models", tmp_path / "models.json", 60)
    book.check("broken", broken)
    book.check("absent", absent)
    book.check("unknown", unknown)
    book.check("late", broken, needs_s=1000)
    book.check("limits", lambda: book.note("above", 2.0, most=1))
    book.check("limits", lambda: book.note("below", 0.0, least=1))
    book.note("not finite", float("nan"), most=1)
    book.note("within", 1.0, "px", most=1, least=1)
    book.note("a number", 1.0)
    book.lines("lines", lambda: print("one\n\ntwo"))
    rows = json.loads((tmp_path / "models.json").read_text())
    assert {row["name"]: row["ok"] for row in rows} == {
        "broken": False,
        "absent": None,
        "unknown": False,
        "late": None,
        "above": False,
        "below": False,
        "not finite": False,
        "within": True,
        "a number": None,
        "lines": None,
    }
    assert rows[0]["value"].startswith("ValueError: planted (test_gpu_benchmark.py:")
    assert rows[1]["value"] == "left out: No module named 'av'"


def test_a_failed_row_comes_last_in_the_table_and_fails_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def part(name: str, options: list[str], limit_s: float, folder: Path) -> gpu.Ended:
        book = Book(name, folder / f"{name}.json", 60)
        book.note("difference", 2.0, most=1 if name == bad else 3)
        return gpu.Ended(name, "done", 1.0)

    monkeypatch.setattr(gpu, "run_part", part)
    bad = ""
    assert gpu.gpu(7, "cpu", quick=True, out=tmp_path)
    bad = "models"
    capsys.readouterr()
    assert not gpu.gpu(7, "cpu", quick=True, out=tmp_path)
    *_, last, counts, _ = capsys.readouterr().out.splitlines()
    assert last.split() == ["FAIL", "models", "difference", "2", "(<=", "1)"]
    assert counts == "4 ok, 1 failed, 0 without a limit; 5 of 5 parts done in 5 s"


@pytest.mark.parametrize(
    ("program", "outcome", "words", "fine"),
    [
        (WRITE + "import time; time.sleep(60)", "stopped", "its limit of 3 s", True),
        (WRITE + "raise SystemExit('no more')", "failed", "exit code 1: no more", False),
        ("import time; time.sleep(60)", "failed", "it wrote nothing", False),
        ("print('nothing')", "failed", "it wrote nothing", False),
        (WRITE, "done", "", True),
    ],
)
def test_a_part_that_ends_early_keeps_its_rows_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, outcome: str, words: str, fine: bool
):
    filled = program.format(rows=str(tmp_path / "models.json"), row=ROW)
    monkeypatch.setattr(gpu, "command", lambda *_: [sys.executable, "-S", "-c", filled])
    monkeypatch.setattr(gpu, "MIN_PART_S", 0.0)
    ended = gpu.run_part("models", [], 3.0, tmp_path)
    summary = gpu.summarise([ended], tmp_path, MACHINE)
    assert ended.outcome == outcome and words in ended.words and gpu.passed(summary) == fine
    assert summary["rows"] == ([ROW] if WRITE in program else [])
    named = [line for line in gpu.table(summary) if line.startswith(f"models: {outcome}, ")]
    assert len(named) == (outcome != "done")


def test_a_part_without_time_is_left_out_and_rows_of_an_earlier_run_are_not_taken(tmp_path: Path):
    (tmp_path / "models.json").write_text("[]")
    ended = gpu.run_part("models", [], 19.0, tmp_path)
    summary = gpu.summarise([ended], tmp_path, MACHINE)
    assert ended == gpu.Ended("models", "left out", 0.0, "19 s are left")
    assert summary["rows"] == [] and gpu.passed(summary)
    assert "models: left out, 19 s are left" in gpu.table(summary)


def test_more_time_makes_limits_longer_and_less_does_not_shorten_them():
    assert gpu.limits(7, "cpu") == gpu.limits(1, "cpu") == gpu.LIMITS_S
    assert gpu.limits(14, "cpu")["models"] == 2 * gpu.LIMITS_S["models"]
