"""Jobs as users start them: processes of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LIMIT_S = 600.0


def start_job(name: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Starts a job of the demo recipe on a Ray of its own, or on the one that ``RAY_ADDRESS`` names.

    Args:
        name: of the job, or the path of a script that runs it differently.
        arguments: flags.
        environment: variables besides those of this process.
    """
    script = name if name.endswith(".py") else f"jobs/{name}.py"
    return subprocess.Popen(
        [sys.executable, script, "demo", *arguments],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": "local", "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    """Waits until a condition holds, for as long as a process runs and at most ``LIMIT_S``."""
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert process.poll() is None, process.stdout.read() if process.stdout else "the process ended before"
        assert time.monotonic() < deadline, f"not within {LIMIT_S:.0f} s"
        time.sleep(0.02)


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Waits for a job that has to end with an exit code; its output and errors."""
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == code, output
    return output
