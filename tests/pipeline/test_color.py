"""A fourth modality: one folder and one line take it through the whole system."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.conftest import Micro

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result(extracted: Micro, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the job printed; its store has the features of the other three already."""
    folder = tmp_path_factory.mktemp("color")
    shutil.copytree(extracted.places.store, folder / "store")
    command = [sys.executable, "-m", "tests.pipeline.color.job", str(extracted.root)]
    command += [str(folder / name) for name in ("store", "runs", "out")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return {"folder": folder, **json.loads(line.removeprefix("RESULT "))}


def test_its_recipe_and_its_settings_are_on_the_command_line(result: dict[str, Any]):
    assert result["parsed"] == [["color"], 0.25]


def test_its_features_alone_are_extracted(result: dict[str, Any]):
    assert any(line.startswith("plan: color: ") and "decoding alone" in line for line in result["planned"])
    others = sum(result["existing"].values())
    assert others == 3 * sum(result["done"].values()) and set(result["done"]) == {"ok"} and result["again"] == {}


def test_it_is_trained_and_dcmmoe_has_twelve_experts(result: dict[str, Any]):
    fused = "face + behavior + audio + color"
    assert result["titles"][:4] == ["face", "behavior", "audio", "color"]
    assert result["titles"][4] == f"dcmmoe ({fused})" and result["widths"]["color"] == {"color": 3}
    assert result["gates"][f"dcmmoe ({fused})"] == 12
    assert result["without"][f"dcmmoe ({fused})"] == ["audio", "behavior", "color", "face"]
    [raav] = [title for title in result["titles"] if title.startswith("raav")]
    assert result["gates"][raav] == 3  # face, behaviour and colour; audio is in the bottleneck
    assert result["noted"]  # the note of the training gives the same run back, of its own class


def test_it_is_predicted_and_reported(result: dict[str, Any]):
    assert result["systems"] == ["face", "behavior", "audio", "color", "dcmmoe", "raav"]
    [path] = (result["folder"] / "out").glob("*.parquet")
    table = pq.read_table(path)
    assert table["color_valence"].null_count == 0 and all(table["color_valid"].to_pylist())
    assert table["color_trust"].null_count == 0 and set(table["color_reason"].to_pylist()) == {""}
    page = (result["folder"] / "out" / "report" / "videos" / f"{path.stem}.html").read_text()
    assert "colour seen" in page
