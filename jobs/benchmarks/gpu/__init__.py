"""Check of a GPU machine: are all models right on it, do they learn, and how fast is it?

models   every model on the GPU against the CPU: float32 forward and gradients, bfloat16; training that has to learn
vlm      the vision-language model at its true size with random weights
speed    frame encoder, fusions, WavLM-Large
kernel   mamba-ssm's scan, if it can be imported or built
compiled torch.compile in training

Each part is a process with a time limit. It writes its rows after every check: a part that is stopped keeps them.
"""

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .book import line, write_json

LIMITS_S = {"models": 120.0, "vlm": 170.0, "speed": 80.0, "kernel": 60.0, "compiled": 120.0}
"""Limit of each part in seconds if there are seven minutes in all; with more it is longer in proportion."""
BUILD_LIMIT_S = 240.0
"""Limit of the kernel's part if the kernel is built first, which is then the last part."""
MINUTES = 7.0
"""Default of all parts' time."""
MIN_PART_S = 20.0
"""A part with less time is left out."""
MARGIN_S = 5.0
"""Time before a part's limit in which it starts no check."""
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
"""Environment variables of the parts' processes."""


class Ended(NamedTuple):
    """End of a part.

    Args:
        part: name of the part.
        outcome: ``done``, ``stopped`` at its limit, ``left out`` for lack of time, or ``failed``.
        seconds: time that it took.
        words: reason of another outcome than ``done``.
    """

    part: str
    outcome: str
    seconds: float
    words: str = ""


def gpu(minutes: float, device: str, *, quick: bool, out: Path | None) -> bool:
    """Runs all parts and prints a table of their rows.

    Args:
        minutes: time of all parts together.
        device: ``cuda`` or ``cpu``.
        quick: whether sizes are tiny: the checks themselves are tried, speeds mean nothing.
        out: folder for ``gpu.json``, and rows and output of each part; a new temporary folder if None.

    Returns:
        Whether no check failed and no part ended by itself before its last check.

    Raises:
        SystemExit: there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device is seen; --device cpu --quick tries the checks themselves")
    folder = out or Path(tempfile.mkdtemp(prefix="affect-gpu-"))
    folder.mkdir(parents=True, exist_ok=True)
    start, ends = time.monotonic(), []
    for part, most_s in limits(minutes, device).items():
        limit_s = min(most_s, 60 * minutes - (time.monotonic() - start))
        print(f"{part}: {max(0.0, limit_s):.0f} s at most", flush=True)
        options = ["--device", device, *(["--quick"] if quick else [])]
        ends.append(run_part(part, options, limit_s, folder))
    summary = summarise(ends, folder, about(device))
    write_json(folder / "gpu.json", summary)
    print("\n".join(table(summary)), f"rows and output of each part: {folder}", sep="\n", flush=True)
    return passed(summary)


def limits(minutes: float, device: str) -> dict[str, float]:
    """Limit of each part in seconds, in the order in which they run."""
    from .kernel import sdist_to_build

    chosen = dict(LIMITS_S)
    if device == "cuda" and sdist_to_build():
        del chosen["kernel"]
        chosen["kernel"] = BUILD_LIMIT_S
    return {part: seconds * max(1.0, minutes / MINUTES) for part, seconds in chosen.items()}


def command(part: str, options: Sequence[str], rows: Path, seconds: float) -> list[str]:
    """Command of a part's process."""
    return [sys.executable, "-m", "benchmarks.gpu", part, "--rows", str(rows), "--seconds", f"{seconds:.0f}", *options]


def run_part(part: str, options: Sequence[str], limit_s: float, folder: Path) -> Ended:
    """Runs a part in a process group of its own, which is killed at the limit.

    Args:
        part: name of the part.
        options: its device and sizes.
        limit_s: its time in seconds.
        folder: folder for its rows (``<part>.json``) and its output (``<part>.log``).
    """
    rows, log = folder / f"{part}.json", folder / f"{part}.log"
    rows.unlink(missing_ok=True)
    if limit_s < MIN_PART_S:
        return Ended(part, "left out", 0.0, f"{max(0.0, limit_s):.0f} s are left")
    start = time.monotonic()
    # Whatever a killed part leaves, such as a checkpoint of 8 GB, is deleted with the folder.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, log.open("w") as output:
        process = subprocess.Popen(
            command(part, options, rows, limit_s - MARGIN_S),
            env=_environment(options) | {"TMPDIR": scratch},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    took, ending = time.monotonic() - start, " / ".join(log.read_text(errors="replace").splitlines()[-3:])
    if not rows.exists():
        return Ended(part, "failed", took, f"it wrote nothing in {took:.0f} s: {ending}")
    if code is None:
        return Ended(part, "stopped", took, f"at its limit of {limit_s:.0f} s; the rows until then are kept")
    return Ended(part, "failed", took, f"exit code {code}: {ending}") if code else Ended(part, "done", took)


def _environment(options: Sequence[str]) -> dict[str, str]:
    """Environment of a part: it imports this package and ``affect`` of the same checkout."""
    jobs = Path(__file__).parents[2]
    paths = [str(jobs), str(jobs.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    made = {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)}
    return made | {"CUDA_VISIBLE_DEVICES": ""} if "cpu" in options else made


def about(device: str) -> dict[str, str]:
    """Card, driver and versions."""
    made = {"device": "CPU", "driver": "none", "torch": torch.__version__, "cuda": str(torch.version.cuda)}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        made["device"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        made["driver"] = _driver()
    return made | {"transformers": version("transformers"), "python": platform.python_version()}


def _driver() -> str:
    """Version of the driver, as nvidia-smi prints it."""
    if not shutil.which("nvidia-smi"):
        return "unknown"
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    return said[0] if said else "unknown"


def summarise(ends: Sequence[Ended], folder: Path, machine: dict[str, str]) -> dict[str, Any]:
    """Content of ``gpu.json``: the machine, the end of each part, all rows.

    Args:
        ends: ends of the parts.
        folder: folder of their rows.
        machine: card, driver and versions.
    """
    files = [folder / f"{end.part}.json" for end in ends]
    rows = [row for file in files if file.exists() for row in json.loads(file.read_text())]
    return {**machine, "parts": [end._asdict() for end in ends], "rows": rows}


def passed(summary: dict[str, Any]) -> bool:
    """Whether no row and no part failed."""
    failed = [row for row in summary["rows"] if row["ok"] is False]
    return not failed and all(part["outcome"] != "failed" for part in summary["parts"])


def table(summary: dict[str, Any]) -> Iterable[str]:
    """Lines of the table: the machine, all rows, failed ones last, parts that did not end well, counts."""
    rows, parts = summary["rows"], summary["parts"]
    failed = [row for row in rows if row["ok"] is False]
    names = ("driver", "torch", "cuda", "transformers", "python")
    yield ", ".join([summary["device"], *(f"{name} {summary[name]}" for name in names)])
    yield from (line(row) for row in [row for row in rows if row["ok"] is not False] + failed)
    yield from (f"{p['part']}: {p['outcome']}, {p['words']}" for p in parts if p["outcome"] != "done")
    done, ok = sum(part["outcome"] == "done" for part in parts), sum(row["ok"] is True for row in rows)
    others = len(rows) - ok - len(failed)
    took = sum(part["seconds"] for part in parts)
    yield f"{ok} ok, {len(failed)} failed, {others} without a limit; {done} of {len(parts)} parts done in {took:.0f} s"
