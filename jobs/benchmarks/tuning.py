"""Searches on the demo: overhead of a trial, parallel trials, ASHA against the whole grid."""

import itertools
import multiprocessing
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .demo import prepared_demo

GRID: dict[str, tuple[Any, ...]] = {
    "raav.hidden": (64, 32, 16),
    "raav.layers": (1, 2),
    "raav.fit.learning_rate": (1e-3, 1e-4, 3e-4),
}
MIB = 2**20


def tune() -> None:
    """Overhead and speed of trials, ASHA against the whole grid, and memory of features that processes share."""
    from affect.corpus import affwild2
    from affect.corpus.videos import find
    from affect.learning.fit import fit
    from affect.pipeline.assemble import assemble
    from affect.pipeline.probe import probe_videos
    from affect.pipeline.tune import prepare, search
    from affect.settings.paths import with_settings
    from affect.settings.spaces import check
    from affect.storage.store import Store
    from affect.trained.inputs import prepared
    from affect.trained.search import SearchOptions

    run, places = prepared_demo()
    torch.set_num_threads(1)
    run, store = replace(run, systems=("face", "behavior", "audio", "raav")), Store(places.store)
    videos = probe_videos(find(places.videos), store, {})
    refs = assemble(run, videos, affwild2.read_splits(places.labels), store)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(places.runs, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("tune*"))

        def job(name: str, trials: int, cpus: float = 1.0, epochs: int | None = None) -> Any:  # noqa: ANN401
            fit = replace(run.raav.fit, max_epochs=epochs or run.raav.fit.max_epochs)
            part = replace(run, raav=replace(run.raav, fit=fit), workers=replace(run.workers, num_cpus=cpus))
            return prepare(part, refs, store, folder, SearchOptions(name, check(GRID, part), trials))

        search(job("warm", 2, epochs=1))
        few, many = _seconds(job("few", 2, 2.0, 1)), _seconds(job("many", 14, 2.0, 1))
        each = (many - few) / 12
        plain = _one_epoch(job("plain", 1, epochs=1))
        print(f"tune: overhead of a trial {each - plain:.2f} s, its training {plain:.2f} s, after the first trials")
        alone, together = _seconds(job("alone", 24, 2.0, 9)), _seconds(job("together", 24, 1.0, 9))
        print(f"tune: 24 trials one by one {alone:.1f} s, two at once {together:.1f} s, ratio {alone / together:.2f}")

        whole = job("grid", 1)
        tracks = prepared(whole.training)[1]
        split = [[tracks[name] for name in names] for names in whole.parts[0]]
        scores, epochs = [], 0
        for values in itertools.product(*GRID.values()):
            settings = with_settings(run, dict(zip(GRID, values, strict=True))).raav
            training = replace(whole.training, run=replace(run, raav=settings))
            fitted = fit(prepared(training)[0], *split, device=torch.device("cpu"))
            scores.append(float(fitted.best.ccc[2]))
            epochs += len(fitted.history)
        print(
            f"tune: the grid's best of {len(scores)} is {max(scores):.3f} (median {np.median(scores):.3f}) after "
            f"{epochs} epochs"
        )
        for seed in range(3):
            found = search(replace(job(f"asha{seed}", len(scores)), seed=seed))
            spent = sum(trial.epochs for trial in found)
            print(
                f"tune: the search with seed {seed} finds {found[0].score:.3f} with {spent / epochs:.0%} of the epochs"
            )
    _memory()


def _seconds(job: Any) -> float:  # noqa: ANN401 -- a Search
    """Seconds of a search."""
    from affect.pipeline.tune import search

    start = time.perf_counter()
    search(job)
    return time.perf_counter() - start


def _one_epoch(job: Any) -> float:  # noqa: ANN401 -- a Search
    """Seconds of the training of a trial of one epoch."""
    from affect.learning.fit import fit
    from affect.trained.inputs import prepared

    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        task, tracks, _widths = prepared(job.training)
        split = [[tracks[name] for name in names] for names in job.parts[0]]
        fit(task, *split, device=torch.device("cpu"))
        best = min(best, time.perf_counter() - start)
    return best


def _memory(num_tracks: int = 12, num_frames: int = 20_000, processes: int = 8) -> None:
    """Memory of processes that each read all features, together, in proportional set size."""
    import pyarrow as pa

    from affect.storage.columns import list_column
    from affect.storage.extracted import Extracted
    from affect.storage.store import Store

    with tempfile.TemporaryDirectory() as folder:
        store, rng = Store(folder), np.random.default_rng(0)
        for number in range(num_tracks):
            values = rng.standard_normal((num_frames, 774), dtype=np.float32)
            store.put(f"{number}.arrow", Extracted(pa.table({"x": list_column(values, pa.float32())})))
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / MIB
        context = multiprocessing.get_context("spawn")
        taken = {}
        for count in (1, processes):
            barrier, queue = context.Barrier(count), context.SimpleQueue()
            workers = [context.Process(target=_read, args=(folder, num_tracks, barrier, queue)) for _ in range(count)]
            for worker in workers:
                worker.start()
            pairs = [queue.get() for _ in workers]
            for worker in workers:
                worker.join()
            taken[count] = (sum(before for before, _ in pairs), sum(after for _, after in pairs))
    (before, after), (before_all, after_all) = taken[1], taken[processes]
    print(
        f"tune: {size:.0f} MiB of features: read by one process they add {after - before:.0f} MiB, by {processes} at "
        f"once {after_all - before_all:.0f} MiB in all (proportional set size)"
    )


def _read(folder: str, num_tracks: int, barrier: Any, queue: Any) -> None:  # noqa: ANN401
    """Maps and reads every track; puts the memory before and after into the queue, while the others hold theirs."""
    from affect.storage.columns import matrix
    from affect.storage.store import Store

    before = _pss_mib()
    barrier.wait()
    tracks = [matrix(Store(folder).get(f"{number}.arrow").table["x"]) for number in range(num_tracks)]
    total = sum(float(values.sum()) for values in tracks)
    barrier.wait()
    queue.put((before, _pss_mib() + 0.0 * total))
    barrier.wait()


def _pss_mib() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
