"""A short run of ``jobs/benchmark.py chaos``: kills, full disks, damaged objects and faulty buckets lose nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROUNDS, SEED = 5, 0


@pytest.mark.slow
def test_nothing_is_lost_on_bad_days(tmp_path: Path):
    command = [sys.executable, "jobs/benchmark.py", "chaos", "--rounds", str(ROUNDS), "--seed", str(SEED)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = str(ROOT)
    end = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=3000)
    (tmp_path / "rounds.txt").write_text(end.stdout)
    rows = re.findall(r"^\| (.+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) / (\d+) \| (.+) \|$", end.stdout, re.MULTILINE)
    assert end.returncode == 0, end.stdout[-5000:] + end.stderr[-2000:]
    assert {verdict for *_, verdict in rows} == {"fine"}
    assert len(rows) == 12 and sum(int(row[1]) for row in rows) == ROUNDS + 7
