"""Metrics at the endpoint of a node's Ray, and the queries of the dashboard."""

import json
import re
import sys
import time
import types
import urllib.request
from collections import defaultdict
from pathlib import Path

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from affect import totals
from affect.corpus.prefetch import prefetch
from affect.pipeline.extract import extract
from affect.pipeline.metrics import NAMES, Metrics
from affect.storage.store import Store
from tests.conftest import Micro

LIMIT_S = 90.0
GAUGE = "affect_gpu_memory_bytes"
EXPORTED = {f"ray_{name}" if name == GAUGE else f"ray_{name}_total" for name in NAMES}
Samples = dict[tuple[str, str, str], float]


def exported() -> Samples:
    """Values of this project's metrics by name, stage and status, summed over processes."""
    [node] = [node for node in ray.nodes() if node["Alive"]]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    found: Samples = defaultdict(float)
    for family in text_string_to_metric_families(urllib.request.urlopen(url).read().decode()):
        for sample in family.samples:
            if "affect" in sample.name:
                found[sample.name, sample.labels["stage"], sample.labels.get("status", "")] += sample.value
    return found


def wait_for(name: str, stage: str, status: str, value: float) -> Samples:
    """Values when a metric has reached a value; nodes export every ten seconds."""
    deadline = time.monotonic() + LIMIT_S
    while (found := exported())[name, stage, status] < value - 1e-6:
        assert time.monotonic() < deadline, f"{name} of {stage} is {found[name, stage, status]}, not {value}"
        time.sleep(1.0)
    return found


def test_an_extraction_is_counted_as_it_was(micro: Micro, tmp_path: Path):
    before = exported()
    folder = tmp_path / "videos"
    folder.mkdir()
    for path in sorted(Path(micro.places.videos).glob("*.mp4")):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.mp4").write_bytes(b"no video")
    summary = extract(micro.run, str(folder), Store(str(tmp_path / "store")))
    length_s = sum(video.head.duration_s for video in summary.videos if video.head)
    for stage in micro.run.extracted:
        done = before["ray_affect_finished_total", stage, "ok"] + summary.done["ok"] / len(micro.run.extracted)
        after = wait_for("ray_affect_finished_total", stage, "ok", done)
        assert after["ray_affect_finished_total", stage, "ok"] == done
        seconds = ("ray_affect_video_seconds_total", stage, "")
        assert after[seconds] - before[seconds] == pytest.approx(length_s)
        work, wait = (f"ray_affect_{name}_seconds_total" for name in ("work", "decode_wait"))
        assert after[work, stage, ""] > before[work, stage, ""]
        waited = after[wait, stage, ""] - before[wait, stage, ""]
        assert 0 <= waited <= after[work, stage, ""] - before[work, stage, ""]
        assert (waited > 0) == (stage != "audio")  # sound is decoded where it is needed


@ray.remote(num_cpus=0)
def use_all(stage: str) -> None:
    """Counts something of everything, on a machine that seems to have a GPU."""
    cuda = types.SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, memory_reserved=lambda: 5 << 30
    )
    sys.modules["torch"] = types.SimpleNamespace(cuda=cuda)  # type: ignore[assignment]
    metrics = Metrics(stage)
    totals.count(totals.READ_BYTES, 7.0)
    totals.count(totals.DECODE_WAIT_S, 0.5)
    for seconds in (2.5, 1.5):
        metrics.progress(seconds)
    metrics.retry()
    metrics.finished("failed", 3.0)
    time.sleep(1.0)
    del sys.modules["torch"]


def test_every_metric_comes_through_under_its_name(local_ray: str, tmp_path: Path):
    stage = tmp_path.name
    ray.get(use_all.remote(stage))
    found = wait_for(f"ray_{GAUGE}", stage, "", 5 << 30)
    values = {name: value for (name, of, _), value in found.items() if of == stage}
    assert values.pop("ray_affect_finished_total") == found["ray_affect_finished_total", stage, "failed"] == 1
    assert values == {
        "ray_affect_video_seconds_total": 4.0,
        "ray_affect_work_seconds_total": 3.0,
        "ray_affect_decode_wait_seconds_total": 0.5,
        "ray_affect_read_bytes_total": 7.0,
        "ray_affect_retries_total": 1.0,
        "ray_affect_gpu_memory_bytes": float(5 << 30),
    }
    assert {name for name, _, _ in found} <= EXPORTED


def test_the_dashboard_asks_for_every_metric_and_no_other():
    board = json.loads((Path(__file__).parents[2] / "cluster" / "grafana.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert set(re.findall(r"\b\w*affect\w*", " ".join(queries))) == EXPORTED
    labels = {label for query in queries for label in re.findall(r"by \(([^)]+)\)", query)}
    assert labels <= {"stage", "stage, status", "stage, NodeAddress"}
    assert [query.count("(") for query in queries] == [query.count(")") for query in queries]


def test_only_waits_for_decoding_are_counted():
    def slow() -> object:
        for number in range(2):
            time.sleep(0.05)
            yield number

    totals.take()
    list(prefetch(slow(), 1))  # type: ignore[call-overload]
    assert totals.take() == {}
    list(prefetch(slow(), 1, counted=True))  # type: ignore[call-overload]
    assert totals.take()[totals.DECODE_WAIT_S] >= 0.1
