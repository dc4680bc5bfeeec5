"""Estimates of work that was never measured."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from affect.behavior.checkpoint import frame_size
from affect.console import estimate
from affect.corpus.probe import Probe
from affect.corpus.videos import find
from affect.face.grada import Grada
from affect.face.modality import grada_operations
from affect.pipeline import forecast
from affect.pipeline.probe import probe_videos
from affect.plan.clips import load_probe
from affect.settings import recipes
from affect.settings.encoder import GradaShape
from affect.storage.store import Store
from affect.trained.models import load_models
from tests.conftest import Micro

FLOPS = 1e11


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of a known speed."""
    monkeypatch.setattr(estimate, "product_flops", lambda: FLOPS)


def probe_of(micro: Micro) -> Probe:
    """Of one of the labelled videos."""
    store = Store(micro.places.store)
    return load_probe(store, probe_videos(find(micro.places.videos), store, {})[0].probe_key)


def test_a_product_is_measured_in_operations_a_second(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    estimate.product_flops.cache_clear()
    assert 1e8 < estimate.product_flops() < 1e13 and torch.get_num_threads() >= 1


def test_behaviour_costs_two_operations_per_weight_and_token(extracted: Micro):
    from transformers import Qwen3VLForConditionalGeneration

    run, probe = extracted.run, probe_of(extracted)
    model = Qwen3VLForConditionalGeneration.from_pretrained(run.behavior.weights)
    decoder = sum(w.numel() for name, w in model.named_parameters() if "language_model.layers" in name)
    tower = sum(w.numel() for name, w in model.named_parameters() if "visual" in name)
    width, height = frame_size(probe.width, probe.height, run.behavior)
    tokens = 8 * (width // 32) * (height // 32)
    operations = 2 * (decoder * tokens + tower * 4 * tokens)
    found = estimate.extraction("behavior", run, probe)
    assert found.work_s == pytest.approx((operations / (0.5 * FLOPS) + 16 * 0.004) / 2, rel=0.02)
    assert f"{tokens:,} tokens a segment" in found.words and found.work_s < 0.1


def test_the_encoder_s_operations_are_counted_and_none_cost_none(extracted: Micro):
    run, probe = extracted.run, probe_of(extracted)
    found = estimate.extraction("face", run, probe).work_s
    without = estimate.extraction("face", replace(run, systems=("audio",), face=replace(run.face, weights="")), probe)
    assert without.work_s == pytest.approx(probe.clock.fps * 0.02) and found > without.work_s
    macs = []
    model = Grada(GradaShape()).eval()
    for module in model.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.register_forward_hook(
                lambda m, _, out: macs.append(m.weight[0].numel() * out.numel() // len(out))  # one crop
            )
    with torch.inference_mode():
        model(torch.zeros(1, 3, 240, 240))
    assert grada_operations("nowhere") == pytest.approx(2 * sum(macs), rel=0.02)


def test_the_first_plan_of_the_true_model_on_a_cpu_advises_a_gpu(extracted: Micro):
    places, true = extracted.places, recipes.behavior()
    pool = replace(true.behavior, num_cpus=0.5)
    cpu, _ = forecast.extraction(replace(true, behavior=pool), places.videos, Store(places.store), [])
    [line] = [line for line in cpu.lines if line.startswith("plan: behavior")]
    assert "ESTIMATED" in line and "4,000 million weights" in line and "GFLOP/s of a product on a core here" in line
    assert any("behavior takes" in said and "--behavior.num-gpus 1" in said for said in cpu.warnings)
    gpu, _ = forecast.extraction(
        replace(true, behavior=replace(pool, num_gpus=1.0)), places.videos, Store(places.store), []
    )
    assert cpu.seconds and gpu.seconds and gpu.seconds < cpu.seconds
    assert not any("behavior takes" in said for said in gpu.warnings)


def test_films_pages_and_predictions_are_estimated_before_their_first_run(trained: Micro, tmp_path: Path):
    store = Store(str(tmp_path))
    found, probed = forecast.extraction(trained.run, trained.places.videos, store, [])
    models = load_models(trained.run, trained.places.runs)
    found = forecast.prediction(found, trained.run, probed, models, store, report=True)
    last = found.lines[-2:]
    assert last[0].startswith("plan: predict: ") and last[1].startswith("plan: films and pages: ")
    assert all("ESTIMATED" in line for line in last) and found.seconds is not None
