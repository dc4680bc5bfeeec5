"""Forecasts of extraction and prediction on this cluster; only missing probes are computed and written."""

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from fsspec.implementations.local import LocalFileSystem

from affect.console import estimate
from affect.console.forecast import Forecast
from affect.corpus.videos import WHOLE, Places, Shard, find, part_of
from affect.modalities import KINDS, stages_of
from affect.pipeline.cluster import actors, check_pools, pool_sizes
from affect.pipeline.probe import probe_videos
from affect.pipeline.report import at_once
from affect.pipeline.streams import MODEL_BYTES, check_inference
from affect.plan.addresses import wanted_features
from affect.plan.clips import Unit, Video, load_probe, missing_units, unit_seconds
from affect.progress import format_duration
from affect.settings.address import address
from affect.settings.extraction import Pool
from affect.settings.run import Run
from affect.storage import files, speed
from affect.storage.store import Store
from affect.trained.models import Model

GIB = 1 << 30
ASSUMED_START_S = 15.0
"""Seconds to start and end a job, where none was measured."""
SLOW_S = 10.0
"""Seconds of work per second of video above which a GPU is recommended."""
NAMES = {"predict": "predict", "report": "films and pages"}
MIN_CPUS_PER_GPU = 8
"""CPUs that decode and prepare frames for one GPU."""
DISK_MARGIN = 1.2
"""Free disk space that is expected, as a multiple of the estimated output."""


@dataclass(frozen=True)
class Work:
    """Estimated work of one kind of features.

    Args:
        line: its line of the forecast.
        start_s: seconds to start and end the actors.
        busy_s: seconds of its pool of actors.
        cpu_s: CPU-seconds.
        gpu_s: GPU-seconds.
        written: bytes.
        warning: a possible problem; empty for none.
    """

    line: str
    start_s: float
    busy_s: float
    cpu_s: float
    gpu_s: float
    written: float
    warning: str = ""


def extraction(
    run: Run,
    videos: Places,
    store: Store,
    tracks: list[str],
    *,
    only: Iterable[str] | None = None,
    retry_failed: bool = False,
    describe: bool = False,
    shard: Shard = WHOLE,
) -> tuple[Forecast, list[Video]]:
    """Forecasts an extraction; its arguments are those of :func:`affect.pipeline.extract.extract`.

    Returns:
        The forecast, and the videos, which are probed for it.

    Raises:
        ValueError: there is no video.
    """
    listed = find(videos)
    prompts, addresses = wanted_features(run, listed.videos, tracks, describe=describe)
    chosen = None if only is None else list(only)
    probed = probe_videos(part_of(listed, shard), store, prompts, only=chosen, retry_failed=retry_failed)
    units, existing = missing_units(probed, run, addresses, store, retry_failed=retry_failed)
    found = Forecast()
    usable = [entry for entry in probed if entry.head]
    length = sum(entry.head.duration_s for entry in usable if entry.head)
    bad = f", {len(probed) - len(usable)} that cannot be used" if len(usable) < len(probed) else ""
    size = sum(entry.bytes for entry in usable) / GIB
    found.lines.append(f"plan: {len(probed)} videos{bad}, {format_duration(length)}, {size:.2f} GiB")
    ended: Counter[str] = Counter()
    for (status, _), number in existing.items():
        ended[status] += number
    if counts := ", ".join(f"{n} {status}" for status, n in sorted(ended.items())):
        found.lines.append(f"plan: in {store.uri} already: {counts}")
    kinds = [kind for kind in addresses if any(kind in unit.missing for unit in units)]
    if not kinds:
        found.lines.append("plan: nothing to extract")
        return found, probed
    sizes = pool_sizes(stages_of(run, kinds), len(units))
    works = [_work(kind, addresses[kind], run, probed, units, store, sizes[kind]) for kind in kinds]
    found.lines += [work.line for work in works]
    found.warnings += [work.warning for work in works if work.warning]
    start_s, busy_s = max(work.start_s for work in works), max(work.busy_s for work in works)
    cpu_s, gpu_s, written = (sum(getattr(work, name) for work in works) for name in ("cpu_s", "gpu_s", "written"))
    found.lines.append(
        f"plan: extraction takes about {format_duration(start_s + busy_s)}: {format_duration(start_s)} to start and "
        f"end, then as long as the slowest stage; {cpu_s / 3600:.2f} CPU-hours, {gpu_s / 3600:.2f} GPU-hours, "
        f"{written / GIB:.2f} GiB written"
    )
    found.add(start_s + busy_s)
    _warn(found, run, kinds, store, written)
    return found, probed


def _work(
    kind: str, mark: str, run: Run, probed: Sequence[Video], units: Sequence[Unit], store: Store, num: int
) -> Work:
    """Estimated work of one kind of features.

    Args:
        kind: the kind.
        mark: address of its features.
        run: the run.
        probed: the videos.
        units: all missing clips, of this kind or others.
        store: feature store.
        num: number of actors.
    """
    missing = [unit for unit in units if kind in unit.missing]
    length_s = sum(unit_seconds(probed[unit.video], unit, run) for unit in missing)
    pool: Pool = KINDS[kind].stage(run)
    known = speed.read(store.uri, kind, mark)
    rate, source = _rate(kind, run, probed, store, known)
    slow = f"{kind} takes {rate:.0f} s of work per second of video on a CPU: use GPUs (--{kind}.num-gpus 1)"
    return Work(
        line=f"plan: {kind}: {len(missing)} clips, {format_duration(length_s)} of video, {rate:.2f} s of work per "
        f"second of video ({source}), {num} actors: {format_duration(length_s * rate / num)}",
        start_s=known.start_s if known else ASSUMED_START_S,
        busy_s=length_s * rate / num,
        cpu_s=length_s * rate * pool.num_cpus,
        gpu_s=length_s * rate * pool.num_gpus,
        written=length_s * _bytes(store, kind, mark, known),
        warning=slow if pool.num_gpus == 0 and rate > SLOW_S else "",
    )


def _rate(kind: str, run: Run, probed: Sequence[Video], store: Store, known: speed.Speed | None) -> tuple[float, str]:
    """Seconds of an actor per second of video, and the source of this number."""
    if known:
        return known.work_s / known.amount, f"measured in {known.runs} runs"
    probe = load_probe(store, next(entry.probe_key for entry in probed if entry.head))
    guess = estimate.extraction(kind, run, probe)
    return guess.work_s, f"ESTIMATED, nothing was measured yet: {guess.words}"


def _bytes(store: Store, kind: str, mark: str, known: speed.Speed | None) -> float:
    """Bytes per second of video."""
    sizes = sum(size for _, size, _ in files.walk(files.join(store.uri, kind, mark))) if known else 0
    return sizes / known.amount if known and sizes else KINDS[kind].bytes_per_s


def _warn(found: Forecast, run: Run, kinds: Sequence[str], store: Store, written: float) -> None:
    """Adds warnings about the cluster and the disk."""
    resources = ray.cluster_resources()
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    try:
        check_pools(run, kinds)
    except ValueError as error:
        found.warnings.append(f"it would not start: {error}")
    pools = stages_of(run, kinds)
    most = sum(pool.max_actors * pool.num_cpus for pool in pools.values())
    if most > cpus and any(pool.max_actors > pool.min_actors for pool in pools.values()):
        found.warnings.append(f"pools may grow to {most:g} CPUs and the cluster has {cpus:g}: one may starve another")
    if gpus and any(pool.num_gpus for pool in pools.values()) and cpus / gpus < MIN_CPUS_PER_GPU:
        found.warnings.append(f"{cpus / gpus:.1f} CPUs per GPU: decoding wants {MIN_CPUS_PER_GPU}, GPUs will wait")
    system, path = files.resolve(store.uri)
    if isinstance(system, LocalFileSystem):
        folder = next(parent for parent in (Path(path), *Path(path).parents) if parent.exists())
        free = shutil.disk_usage(folder).free
        if free < DISK_MARGIN * written:
            found.warnings.append(f"{folder} has {free / GIB:.1f} GiB free, {written / GIB:.1f} GiB would be written")


def prediction(
    found: Forecast, run: Run, probed: Sequence[Video], models: Mapping[str, Model], store: Store, *, report: bool
) -> Forecast:
    """Adds the prediction of videos to a forecast.

    Args:
        found: forecast of the extraction.
        run: the run.
        probed: the videos.
        models: from :func:`affect.trained.models.load_models`.
        store: feature store, which also keeps measured speeds.
        report: whether films and pages are made.

    Returns:
        The same forecast.
    """
    try:
        check_inference(run.inference)
    except ValueError as error:
        found.warnings.append(f"it would not start: {error}")
    length = sum(entry.head.duration_s for entry in probed if entry.head)
    all_models = address({system: model.address for system, model in models.items()})
    for step, mark in [("predict", all_models), *([("report", "films")] if report else [])]:
        known = speed.read(store.uri, step, mark)
        num = actors(run.inference, len(probed), MODEL_BYTES) if step == "predict" else at_once(len(probed))
        if known:
            rate, start_s, source = known.work_s / known.amount, known.start_s, f"measured in {known.runs} runs"
        else:
            fps = sum(e.head.num_frames for e in probed if e.head) / max(length, 1e-9)
            guess = estimate.prediction(run, models, fps) if step == "predict" else estimate.REPORT
            rate, start_s, source = guess.work_s, ASSUMED_START_S, f"ESTIMATED: {guess.words}"
        seconds = start_s + length * rate / num
        found.lines.append(f"plan: {NAMES[step]}: {format_duration(seconds)} if none is there yet ({source})")
        found.add(seconds)
    return found
