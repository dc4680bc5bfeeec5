"""One Ray for the whole session, and one micro corpus that went through the whole system on it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import ray
import torch

os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)

from affect import recipes
from affect.config import Fit, Run
from affect.recipes import Places


@pytest.fixture(scope="session")
def local_ray() -> Iterator[str]:
    """A local Ray of two CPUs; its address."""
    context = ray.init(num_cpus=2, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False)
    yield context.address_info["gcs_address"]
    ray.shutdown()


def short(fit: Fit) -> Fit:
    """Two epochs."""
    return replace(fit, max_epochs=2)


def micro_run(root: str) -> Run:
    """The demo's recipe, trained for two epochs a model."""
    run = recipes.demo(root)
    return replace(
        run,
        grid=replace(run.grid, clip_s=2.0),
        face=replace(run.face, min_actors=1, max_actors=1),
        face_transformer=replace(run.face_transformer, fit=short(run.face_transformer.fit)),
        mamba=replace(run.mamba, fit=short(run.mamba.fit)),
        wavlm=replace(run.wavlm, fit=short(run.wavlm.fit)),
        dcmmoe=replace(run.dcmmoe, fit=short(run.dcmmoe.fit)),
        raav=replace(run.raav, fit=short(run.raav.fit)),
    )


@dataclass(frozen=True)
class Micro:
    """The micro corpus with its checkpoints."""

    run: Run
    places: Places
    root: Path


@pytest.fixture(scope="session")
def micro(local_ray: str, tmp_path_factory: pytest.TempPathFactory) -> Micro:
    """Three people, five seconds, ten frames a second, clips of two seconds; nothing extracted yet."""
    from affect.pipeline import demo

    root = tmp_path_factory.mktemp("micro")
    run, places = micro_run(str(root)), recipes.demo_places(str(root))
    demo.prepare(run, places, "micro")
    return Micro(run, places, root)


@pytest.fixture(scope="session")
def extracted(micro: Micro) -> Micro:
    """The micro corpus' labelled videos, extracted."""
    from affect.pipeline.extract import extract
    from affect.pipeline.store import Store

    summary = extract(micro.run, micro.places.videos, Store(micro.places.store))
    assert summary.exit_code == 0, summary.reasons
    return micro
