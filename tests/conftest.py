"""Fixtures of the session: one Ray, and one micro corpus that is extracted, trained on and predicted with it."""

import faulthandler
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["REPORTER_UPDATE_INTERVAL_MS"] = "60000"  # Ray's agents look at every process, each 5 s if not told
torch.set_num_threads(1)

from affect.corpus.videos import find
from affect.pipeline import streams
from affect.settings import recipes
from affect.settings.extraction import Pool
from affect.settings.recipes import Places
from affect.settings.run import Run
from affect.settings.training import Fit


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs tests that need Ray first, as they take longest, and in one process, so that they share Ray and models.

    A module with a group of its own shares nothing and runs in the other process.
    """

    def needs_ray(item: pytest.Item) -> bool:
        return "local_ray" in getattr(item, "fixturenames", ())

    for item in filter(needs_ray, items):
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group("ray"))
    items.sort(key=lambda item: not needs_ray(item))


IN_PROCESS = [False]
"""Stack of choices: whether the actors of pools run in the process of the tests."""


@contextmanager
def pools(*, in_process: bool) -> Iterator[None]:
    """Runs the actors of pools in this process, or as Ray Data's actors, until the end of the block."""
    IN_PROCESS.append(in_process)
    try:
        yield
    finally:
        IN_PROCESS.pop()


@pytest.fixture(scope="module")
def pools_here(local_ray: str) -> Iterator[None]:
    """Runs actors in this process: as actors of Ray they take seconds to start, and these tests are of their work.

    Ray Data's own pools are tested by the fixtures of the session, which never run in this process, and by the tests of
    extraction.
    """
    with pools(in_process=True):
        yield


def _pool(
    rows: list[dict[str, Any]], actor: type, arguments: tuple[Any, ...], settings: Pool, stage: str, store: Any
) -> Iterator[Any]:
    if not IN_PROCESS[-1]:
        yield from streams.pool(rows, actor, arguments, settings, stage, store)
        return
    call = actor(*arguments)
    for row in rows:
        yield {name: values[0] for name, values in call({name: [value] for name, value in row.items()}).items()}


def _extract_here(rows: list[dict[str, Any]], actors: list[Any]) -> Iterator[dict[str, Any]]:
    """Runs clips through all actors, one after the other, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("dump_traceback_later", "cancel_dump_traceback_later"):  # a clip's limit would end this process
            patch.setattr(faulthandler, name, lambda *_, **__: None)
        for row in rows:
            batch = {name: [value] for name, value in row.items()}
            for actor in actors:
                batch = actor(batch)
            yield {name: values[0] for name, values in batch.items()}


def _install() -> None:
    """Makes :func:`pools` decide where actors run."""
    from affect.pipeline import graph

    by_ray = graph.extract

    def extract(rows: Any, kinds: Any, run: Run, given: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
        if not IN_PROCESS[-1]:
            return by_ray(rows, kinds, run, given)
        return _extract_here(rows, [graph.ExtractActor(kind, run, *given) for kind in kinds])

    graph.extract = extract
    graph.pool = _pool  # type: ignore[assignment]


@pytest.fixture(scope="session")
def local_ray() -> Iterator[str]:
    """Address of a local Ray with two CPUs."""
    _install()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOG_NAME_UPDATE_INTERVAL_S", "10")  # nobody reads the logs of hundreds of workers
        context = ray.init(
            "local", num_cpus=2, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False
        )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    yield context.address_info["gcs_address"]
    ray.shutdown()


def short(fit: Fit) -> Fit:
    """Limits a training to two epochs."""
    return replace(fit, max_epochs=2)


def micro_run(root: str) -> Run:
    """The demo's recipe with two epochs for each model."""
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
    """The micro corpus with its checkpoints.

    Args:
        run: its recipe.
        places: its videos, labels, store, models and predictions.
        root: folder of all of them.
    """

    run: Run
    places: Places
    root: Path


@pytest.fixture(scope="session")
def micro(local_ray: str, tmp_path_factory: pytest.TempPathFactory) -> Micro:
    """The micro corpus: three people, five seconds at 10 frames per second, clips of two seconds; not extracted."""
    from affect.pipeline import demo_assets as demo

    root = tmp_path_factory.mktemp("micro")
    run, places = micro_run(str(root)), recipes.demo_places(str(root))
    demo.prepare(run, places, "micro")
    return Micro(run, places, root)


@pytest.fixture(scope="session")
def extracted(micro: Micro) -> Micro:
    """The micro corpus with the features of its labelled videos."""
    from affect.pipeline.extract import extract
    from affect.storage.store import Store

    with pools(in_process=False):
        summary = extract(micro.run, micro.places.videos, Store(micro.places.store))
    assert summary.exit_code == 0, summary.reasons
    return micro


@pytest.fixture(scope="session")
def trained(extracted: Micro) -> Micro:
    """The micro corpus with all five systems trained for two epochs."""
    from affect.corpus import affwild2
    from affect.pipeline.assemble import assemble
    from affect.pipeline.probe import probe_videos
    from affect.pipeline.train import train
    from affect.storage.store import Store

    store = Store(extracted.places.store)
    videos = probe_videos(find(extracted.places.videos), store, {})
    refs = assemble(extracted.run, videos, affwild2.read_splits(extracted.places.labels), store)
    train(extracted.run, refs, store, extracted.places.runs)
    return extracted


@pytest.fixture(scope="session")
def predicted(trained: Micro) -> str:
    """Folder of predictions for the held-out person of the micro corpus."""
    from affect.pipeline.extract import extract
    from affect.pipeline.predict import predict
    from affect.storage.store import Store
    from affect.trained.models import load_models

    store, out = Store(trained.places.store), str(trained.root / "predictions")
    with pools(in_process=False):
        summary = extract(trained.run, trained.places.new_videos, store)
        models = load_models(trained.run, trained.places.runs)
        predict(trained.run, summary.videos, models, store, out, whom=["video03"])
    return out
