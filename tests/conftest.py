"""One Ray for the whole session, and one micro corpus that went through the whole system on it."""

import logging
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
    context = ray.init(
        "local", num_cpus=2, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False
    )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
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


@pytest.fixture(scope="session")
def trained(extracted: Micro) -> Micro:
    """The micro corpus with all five systems trained, two epochs each."""
    from affect.corpus import affwild2
    from affect.pipeline import plan
    from affect.pipeline.assemble import assemble
    from affect.pipeline.store import Store
    from affect.pipeline.train import train

    store = Store(extracted.places.store)
    videos = plan.probe_videos(extracted.places.videos, store, {})
    refs = assemble(extracted.run, videos, affwild2.read_splits(extracted.places.labels), store)
    train(extracted.run, refs, store, extracted.places.runs)
    return extracted


@pytest.fixture(scope="session")
def predicted(trained: Micro) -> str:
    """Folder of predictions of the micro corpus' held-out person."""
    from affect.pipeline.extract import extract
    from affect.pipeline.predict import load_models, predict
    from affect.pipeline.store import Store

    store, out = Store(trained.places.store), str(trained.root / "predictions")
    summary = extract(trained.run, trained.places.new_videos, store)
    predict(trained.run, summary.videos, load_models(trained.run, trained.places.runs), store, out, tracks=["video03"])
    return out
