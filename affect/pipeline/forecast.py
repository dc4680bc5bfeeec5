"""What a job would do, how long it takes and what may go wrong; nothing but probes is computed or written."""

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from affect.console import estimate
from affect.console.exits import EXIT_OK
from affect.corpus import affwild2
from affect.corpus.affwild2 import Split
from affect.corpus.videos import Places, find
from affect.modalities import KINDS, SYSTEMS
from affect.pipeline.cluster import actors, check_pools, room
from affect.pipeline.probe import probe_videos
from affect.pipeline.report import at_once
from affect.pipeline.streams import MODEL_BYTES, check_inference
from affect.plan.addresses import feature_addresses, wanted_features
from affect.plan.clips import Video, load_probe, missing_units, unit_seconds
from affect.progress import format_duration, say
from affect.settings.address import address
from affect.settings.extraction import Pool
from affect.settings.run import Run
from affect.storage import files, speed
from affect.storage.state import ProbeSummary
from affect.storage.store import Store
from affect.trained.models import Model, load_model
from affect.trained.runs import read_run, run_name

GIB = 1 << 30
MAX_NAMED = 20
"""Labels that are named of those that something is wrong with."""
ASSUMED_START_S = 15.0
SLOW_S = 10.0
"""Seconds of work per second of video beyond which a GPU is advised."""
NAMES = {"predict": "predict", "report": "films and pages"}
MIN_CPUS_PER_GPU = 8
"""Decoding and preparing keep about this many CPUs busy for a GPU."""


@dataclass
class Forecast:
    """What is to be said of a job.

    Args:
        lines: what would run.
        warnings: what may go wrong.
        seconds: how long it would take; None where nothing is known.
    """

    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float | None = 0.0

    def add(self, seconds: float | None) -> None:
        """Count time; not knowing one part is not knowing the whole."""
        self.seconds = None if self.seconds is None or seconds is None else self.seconds + seconds

    def show(self) -> int:
        """Say it all; returns the exit code."""
        for line in self.lines:
            say(line)
        for warning in self.warnings:
            say(f"plan: WARNING: {warning}")
        took = {None: "; how long it takes is not known yet", 0.0: ", and nothing is to do"}
        say(f"plan: nothing was done{took.get(self.seconds, f'; in all about {format_duration(self.seconds or 0.0)}')}")
        return EXIT_OK


def extraction(
    run: Run,
    videos: Places,
    store: Store,
    tracks: list[str],
    *,
    only: Iterable[str] | None = None,
    retry_failed: bool = False,
    describe: bool = False,
) -> tuple[Forecast, list[Video]]:
    """Forecast an extraction.

    Args:
        run: as in :func:`affect.pipeline.extract.extract`, and so are the others.
        videos: the same.
        store: the same.
        tracks: the same.
        only: the same.
        retry_failed: the same.
        describe: the same.

    Returns:
        The forecast and the videos, which are probed for it.
    """
    listed = find(videos)
    asked, where = wanted_features(run, listed.videos, tracks, describe=describe)
    chosen = None if only is None else list(only)
    probed = probe_videos(listed, store, asked, only=chosen, retry_failed=retry_failed)
    units, existing = missing_units(probed, run, where, store, retry_failed=retry_failed)
    found = Forecast()
    usable = [entry for entry in probed if entry.head]
    length = sum(entry.head.duration_s for entry in usable if entry.head)
    bad = f", {len(probed) - len(usable)} that cannot be used" if len(usable) < len(probed) else ""
    size = sum(entry.bytes for entry in usable) / GIB
    found.lines.append(f"plan: {len(probed)} videos{bad}, {format_duration(length)}, {size:.2f} GiB")
    counts = ", ".join(f"{n} {status}" for status, n in sorted(Counter(o.status for o in existing).items()))
    if counts:
        found.lines.append(f"plan: in {store.uri} already: {counts}")
    kinds = [kind for kind in where if any(kind in unit.missing for unit in units)]
    if not kinds:
        found.lines.append("plan: nothing to extract")
        return found, probed
    busy, start_s, written, cpu_hours, gpu_hours = 0.0, 0.0, 0.0, 0.0, 0.0
    for kind in kinds:
        own = [unit for unit in units if kind in unit.missing]
        to_do = sum(unit_seconds(probed[unit.video], unit, run) for unit in own)
        pool: Pool = KINDS[kind].stage(run)
        known = speed.read(store.uri, kind, where[kind])
        rate, source = _rate(kind, run, probed, store, known)
        num = actors(pool, len(units))
        start_s = max(start_s, known.start_s if known else ASSUMED_START_S)
        busy = max(busy, to_do * rate / num)
        cpu_hours += to_do * rate * pool.num_cpus / 3600
        gpu_hours += to_do * rate * pool.num_gpus / 3600
        written += to_do * _bytes(store, kind, where[kind], known)
        found.lines.append(
            f"plan: {kind}: {len(own)} clips, {format_duration(to_do)} of video, {rate:.2f} s of work per second of "
            f"video ({source}), {num} actors: {format_duration(to_do * rate / num)}"
        )
        if pool.num_gpus == 0 and rate > SLOW_S:
            found.warnings.append(
                f"{kind} takes {rate:.0f} s of work per second of video on a CPU: use GPUs (--{kind}.num-gpus 1)"
            )
    found.lines.append(
        f"plan: extraction takes about {format_duration(start_s + busy)}: {format_duration(start_s)} to start and end, "
        f"then as long as the slowest stage; {cpu_hours:.2f} CPU-hours, {gpu_hours:.2f} GPU-hours, "
        f"{written / GIB:.2f} GiB written"
    )
    found.add(start_s + busy)
    _warn(found, run, kinds, store, written)
    return found, probed


def _rate(kind: str, run: Run, probed: Sequence[Video], store: Store, known: speed.Speed | None) -> tuple[float, str]:
    """Seconds of an actor per second of video, and where that is from."""
    if known:
        return known.work_s / known.amount, f"measured in {known.runs} runs"
    probe = load_probe(store, next(entry.probe_key for entry in probed if entry.head))
    found = estimate.extraction(kind, run, probe)
    return found.work_s, f"ESTIMATED, nothing was measured yet: {found.words}"


def _bytes(store: Store, kind: str, mark: str, known: speed.Speed | None) -> float:
    """Bytes per second of video."""
    sizes = sum(size for _, size, _ in files.walk(files.join(store.uri, kind, mark))) if known else 0
    return sizes / known.amount if known and sizes else KINDS[kind].bytes_per_s


def _warn(found: Forecast, run: Run, kinds: Sequence[str], store: Store, written: float) -> None:
    there = room()
    cpus, gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
    try:
        check_pools(run, kinds)
    except ValueError as error:
        found.warnings.append(f"it would not start: {error}")
    pools: dict[str, Pool] = {kind: KINDS[kind].stage(run) for kind in kinds}
    most = sum(pool.max_actors * pool.num_cpus for pool in pools.values())
    if most > cpus and any(pool.max_actors > pool.min_actors for pool in pools.values()):
        found.warnings.append(f"pools may grow to {most:g} CPUs and the cluster has {cpus:g}: one may starve another")
    if gpus and any(pool.num_gpus for pool in pools.values()) and cpus / gpus < MIN_CPUS_PER_GPU:
        found.warnings.append(f"{cpus / gpus:.1f} CPUs per GPU: decoding wants {MIN_CPUS_PER_GPU}, GPUs will wait")
    system, path = files.resolve(store.uri)
    if isinstance(system, LocalFileSystem):
        folder = next(parent for parent in (Path(path), *Path(path).parents) if parent.exists())
        free = shutil.disk_usage(folder).free
        if free < 1.2 * written:
            found.warnings.append(f"{folder} has {free / GIB:.1f} GiB free, {written / GIB:.1f} GiB would be written")


def training(
    found: Forecast,
    run: Run,
    probed: Sequence[Video],
    labels: Mapping[Split, Mapping[str, Sized]],
    runs: str,
    folds: int,
    rotations: int = 0,
) -> Forecast:
    """Add what would be trained.

    Args:
        found: of the extraction.
        run: the run.
        probed: the videos.
        labels: annotations by split and track.
        runs: where models go.
        folds: of the training.
        rotations: folds of a cross-validation, each of which is a training beside the last one.
    """
    runs = files.absolute(runs)
    heads = {entry.stem: entry.head for entry in probed if entry.head}
    usable: dict[Split, list[ProbeSummary]] = {split: [] for split in labels}
    stems, missing = {entry.stem for entry in probed}, []
    for split, tracks in labels.items():
        for name, gold in tracks.items():
            said = ""
            try:
                if head := heads.get(affwild2.video_of(name, stems)):
                    said = affwild2.check_length(name, len(gold), head.num_frames, head.duration_s)
                    usable[split].append(head)
                else:
                    said = f"left out: track {name}: its video cannot be used"
            except affwild2.LabelError as error:
                said = f"left out: {error}"
            missing += [said] * bool(said)
    found.warnings += missing[:MAX_NAMED]
    if len(missing) > MAX_NAMED:
        found.warnings.append(f"and {len(missing) - MAX_NAMED} more labels")
    total = sum(head.num_frames for head in usable["train"])
    development = len(usable.get("development", ())) or rotations
    other = f"{rotations} folds" if rotations else f"{development} development tracks"
    found.lines.append(f"plan: {len(usable['train'])} training tracks, {total:,} frames; {other}")
    there = _trained(run, runs, folds)
    if not total or not development:
        found.warnings.append("it would not start: no annotated video is here for training, or none for development")
        return found
    for system in run.systems:
        if system in there:
            found.lines.append(f"plan: {system}: there already, {there[system]}, unless labels or features changed")
            continue
        times = 1 + rotations + (folds if folds and not run.reads(system) else 0)
        fit = run.settings_of(system).fit
        known = speed.read(runs, *speed.training_key(run, system))
        amount = total * times
        if known is None:
            found.lines.append(f"plan: {system}: {times} x at most {fit.max_epochs} epochs, not timed yet")
            found.add(None)
            continue
        epochs = min(fit.max_epochs, known.amount / known.runs / amount)
        likely, most = (amount * n * known.work_s / known.amount for n in (epochs, fit.max_epochs))
        found.lines.append(
            f"plan: {system}: {times} x at most {fit.max_epochs} epochs, {format_duration(likely)} for {epochs:.0f} as "
            f"before, {format_duration(most)} at most"
        )
        found.add(likely)
    return found


def _trained(run: Run, runs: str, folds: int) -> dict[str, str]:
    """Models of the recipe's latest training that have the run's settings."""
    found: dict[str, str] = {}
    features = feature_addresses(run)
    for system, mark in read_run(runs, run_name(run.name, folds)).items():
        if system not in run.systems:
            continue
        model = load_model(files.join(runs, system, mark))
        same = model.settings_address == SYSTEMS[system].settings_address(run)
        fresh = all(found.get(m) for m in run.reads(system)) or not run.reads(system)
        if same and fresh and all(features.get(m) == at for m, at in model.features.items()):
            found[system] = model.uri
    return found


def prediction(
    found: Forecast, run: Run, probed: Sequence[Video], models: Mapping[str, Model], store: Store, *, report: bool
) -> Forecast:
    """Add what would be predicted.

    Args:
        found: of the extraction.
        run: the run.
        probed: the videos.
        models: from :func:`affect.trained.models.load_models`.
        store: where speeds are kept.
        report: whether films and pages are made.
    """
    try:
        check_inference(run.inference)
    except ValueError as error:
        found.warnings.append(f"it would not start: {error}")
    length = sum(entry.head.duration_s for entry in probed if entry.head)
    all_models = address({system: model.address for system, model in models.items()})
    for what, mark in [("predict", all_models), *([("report", "films")] if report else [])]:
        known = speed.read(store.uri, what, mark)
        num = actors(run.inference, len(probed), MODEL_BYTES) if what == "predict" else at_once(len(probed))
        if known:
            rate, start_s, source = known.work_s / known.amount, known.start_s, f"measured in {known.runs} runs"
        else:
            fps = sum(e.head.num_frames for e in probed if e.head) / max(length, 1e-9)
            guess = estimate.prediction(run, models, fps) if what == "predict" else estimate.REPORT
            rate, start_s, source = guess.work_s, ASSUMED_START_S, f"ESTIMATED: {guess.words}"
        took = start_s + length * rate / num
        found.lines.append(f"plan: {NAMES[what]}: {format_duration(took)} if none is there yet ({source})")
        found.add(took)
    return found
