"""Training: assembled tracks, one system after the other, on this process, Ray Train workers or Ray tasks.

tracks --> face | behavior | audio --> embedded/<model address>/<track> --> dcmmoe | raav

What a fusion learns from has been said either by models that were trained on the same frames, or, in k folds, by models
that never saw the track's video; development tracks are always embedded by the model of all training tracks.
"""

import dataclasses
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import ray
import torch

from affect.corpus.track import Track
from affect.learning import distributed
from affect.learning.batches import Loader, load_here
from affect.learning.checkpoint import save_weights
from affect.learning.fit import CheckpointFile, Fitted, fit, keep_freed_memory
from affect.learning.observer import Observer
from affect.learning.task import TrackTask
from affect.modalities import MODALITIES, SYSTEMS
from affect.pipeline.cluster import WORKERS_ADVICE, check_room, shares_of
from affect.pipeline.stream import TrackLoader
from affect.pipeline.streams import check_inference
from affect.pipeline.trunk import store_trunk
from affect.pipeline.workers import MAX_FAILURES, device_of, on_workers
from affect.plan.addresses import feature_addresses
from affect.progress import Meter, say
from affect.report.training import training_report
from affect.settings.address import address
from affect.settings.run import Run
from affect.storage import files, schema
from affect.storage.rows import raise_open_file_limit
from affect.storage.speed import record as record_speed
from affect.storage.speed import training_key
from affect.storage.store import Store
from affect.tracks.tables import TrackRef, load_track
from affect.trained.embedded import embedded_key, put_embedded, with_embeddings
from affect.trained.models import Model, load_model
from affect.trained.runs import note_run, run_name
from affect.trained.trunk import with_trunk


@dataclass(frozen=True)
class Training:
    """One model to be trained.

    Args:
        run: the run.
        system: which system.
        refs: tracks to learn from and to select on.
        embeds: tracks that it then embeds.
        upstream: address of the model that embeds a track for it, by modality and track.
        models: address of the models that embed new tracks for it, by modality.
        settings: address of the system's settings.
        features: addresses of the features that it and the models before it read, by modality.
        folds: as in :class:`affect.trained.models.Model`.
        store: where tracks are and embeddings go.
        runs: where models go.
        label: what is said of it.
        trunk: address of the stored states that it reads in place of waveforms; empty: waveforms.
    """

    run: Run
    system: str
    refs: tuple[TrackRef, ...]
    embeds: tuple[TrackRef, ...]
    upstream: Mapping[str, Mapping[str, str]]
    models: Mapping[str, str]
    settings: str
    features: Mapping[str, str]
    folds: int
    store: Store
    runs: str
    label: str
    trunk: str = ""

    @property
    def own(self) -> tuple[str, ...]:
        """The features that it reads itself."""
        return (self.system,) if self.system in MODALITIES else ()

    @cached_property
    def address(self) -> str:
        """Address of everything that decides its numbers."""
        read = sorted((ref.mark(*self.own), ref.split) for ref in self.refs)
        said = {m: sorted(of.items()) for m, of in self.upstream.items()}
        return address(schema.VERSION, schema.MODEL_VERSION, self.system, self.settings, read, said)

    @property
    def loader(self) -> Loader:
        """Makes its batches: Ray Data where workers train on a modality whose inputs are streamed."""
        streamed = self.system in MODALITIES and MODALITIES[self.system].streamed
        if not streamed or not self.run.workers.num_workers:
            return load_here
        refs = {ref.name: ref for ref in self.refs}
        return TrackLoader(self.system, refs, self.store, self.trunk, self.run.workers.loader_cpus)

    @property
    def uri(self) -> str:
        """Its folder."""
        return files.join(self.runs, self.system, self.address)

    @property
    def checkpoint(self) -> str:
        """Where it is kept while it is under way."""
        return files.join(self.uri, "checkpoint.safetensors")

    @property
    def finished(self) -> bool:
        """Whether the model is there."""
        return files.exists(files.join(self.uri, "model.json"))


def train(run: Run, refs: list[TrackRef], store: Store, runs: str, *, folds: int = 0) -> list[Model]:
    """Train what is missing of a run's systems, modalities before fusions.

    Args:
        run: the run.
        refs: assembled tracks.
        store: where they are and where embeddings go.
        runs: where models go.
        folds: in how many folds the tracks that fusions learn from are embedded; 0: in the sample.

    Returns:
        The models, in order.

    Raises:
        ValueError: a split has no track, or there are fewer videos than folds.
    """
    models = [load_model(training.uri) for training in train_all(run, refs, store, runs, folds=folds).values()]
    training_report(runs, run_name(run.name, folds), models)
    return models


def train_all(
    run: Run, refs: Sequence[TrackRef], store: Store, runs: str, *, folds: int = 0, but: str | None = None
) -> dict[str, Training]:
    """The same, with how each model was trained.

    Args:
        run: as in :func:`train`, and so are the others.
        refs: the same.
        store: the same.
        runs: the same.
        folds: the same.
        but: the run's last system, which is prepared and not trained.
    """
    if folds and not any(run.reads(system) for system in run.systems):
        raise ValueError(f"--folds {folds}: recipe {run.name} has no fusion, which alone learns from folds")
    for split in ("train", "development"):
        if not any(ref.split == split for ref in refs):
            raise ValueError(f"no usable track in the {split} split")
    parts = fold_videos(sizes(refs, store), folds) if folds else []
    runs, where = files.absolute(runs), feature_addresses(run)
    made: dict[str, Training] = {}
    upstream: dict[str, dict[str, str]] = {}
    for system in run.systems:
        read = {m: upstream[m] for m in run.reads(system)}
        at = {m: made[m].address for m in read}
        whole = Training(
            run=run,
            system=system,
            refs=tuple(refs),
            embeds=tuple(refs),
            upstream=read,
            models=at,
            settings=SYSTEMS[system].settings_address(run),
            features={m: where[m] for m in run.extracted_for(system)},
            folds=folds if read else 0,
            store=store,
            runs=runs,
            label=system,
        )
        made[system] = whole
        if system == but:
            continue
        todo = [whole]
        if not read and parts and _is_read(run, system):
            whole = dataclasses.replace(whole, embeds=tuple(ref for ref in refs if ref.split != "train"))
            todo = [
                whole,
                *(_without(whole, part, f"{system} without fold {i}") for i, part in enumerate(parts, start=1)),
            ]
            made[system] = whole
        _timed(todo)
        if system in MODALITIES:
            for training in todo:
                _embed_missing(training)
            upstream[system] = {ref.name: training.address for training in todo for ref in training.embeds}
        note_run(run, runs, run_name(run.name, folds), store.uri, {system: whole.address})
    return made


def check(run: Run, folds: int) -> None:
    """See that training can begin, before hours of extraction.

    Raises:
        WeightsError: there is no such pretrained audio model; a hub's weights are fetched later.
        ValueError: folds cannot be, or what training needs has no room.
    """
    if folds == 1 or folds < 0:
        raise ValueError(f"--folds {folds}: give 0 for none, or 2 or more")
    for system in run.systems:
        SYSTEMS[system].check(run)
    trained = [MODALITIES[m] for m in run.modalities]
    if any(modality.trunk_address(run) for modality in trained):
        check_inference(run.inference)
    if run.workers.num_workers and not folds and any(modality.streamed for modality in trained):
        check_room(shares_of(run.workers, read=True), WORKERS_ADVICE)


def fold_videos(sizes: Mapping[str, int], folds: int) -> list[set[str]]:
    """Deal videos out to folds of about the same number of frames.

    Args:
        sizes: frames of each video, of all its tracks together, which so stay in one fold.
        folds: two or more.

    Returns:
        The videos of each fold.

    Raises:
        ValueError: there are fewer videos than folds.
    """
    if folds < 2 or len(sizes) < folds:
        raise ValueError(f"--folds {folds}: there are {len(sizes)} training videos, give 2 to {len(sizes)}")
    parts: list[set[str]] = [set() for _ in range(folds)]
    frames = [0] * folds
    for video in sorted(sizes, key=lambda name: (-sizes[name], name)):
        lightest = frames.index(min(frames))
        parts[lightest].add(video)
        frames[lightest] += sizes[video]
    return parts


def sizes(refs: Iterable[TrackRef], store: Store) -> dict[str, int]:
    """Frames of each training video, of all its tracks together."""
    sizes: dict[str, int] = {}
    for ref in refs:
        if ref.split == "train":
            sizes[ref.video] = sizes.get(ref.video, 0) + load_track(store, ref, ()).num_frames
    return sizes


def _is_read(run: Run, system: str) -> bool:
    """Whether a fusion of the run reads it."""
    return any(system in run.reads(other) for other in run.systems)


def _without(whole: Training, videos: set[str], label: str) -> Training:
    """The same training without some videos, which it then embeds."""
    held_out = tuple(ref for ref in whole.refs if ref.split == "train" and ref.video in videos)
    kept = tuple(ref for ref in whole.refs if ref not in held_out)
    return dataclasses.replace(whole, refs=kept, embeds=held_out, label=label)


def _timed(trainings: list[Training]) -> None:
    """Train, and note how long it took where it was done in one go."""
    new = [t for t in trainings if not t.finished and not files.exists(t.checkpoint)]
    start = time.monotonic()
    _train_all(trainings)
    if new:
        amount = sum(_seen(training) for training in new)
        record_speed(new[0].runs, *training_key(new[0].run, new[0].system), amount, time.monotonic() - start, 0.0)


def _seen(training: Training) -> float:
    """Training frames times epochs of a finished training."""
    epochs = len(json.loads(files.read(files.join(training.uri, "history.json"))))
    return float(epochs * sum(sizes(training.refs, training.store).values()))


def _train_all(trainings: list[Training]) -> None:
    """Train what is not there: one model on the run's workers, several as Ray tasks at once."""
    todo = []
    for training in trainings:
        if training.finished:
            say(f"train {training.label}: there already, {training.uri}")
        else:
            todo.append(training)
    run, system = trainings[0].run, trainings[0].system
    if todo and system in MODALITIES and MODALITIES[system].trunk_address(run):
        refs = {ref for training in todo for ref in training.refs}
        trunk = store_trunk(run, sorted(refs, key=lambda ref: ref.name), trainings[0].store)
        todo = [dataclasses.replace(training, trunk=trunk) for training in todo]
    workers = run.workers
    if len(trainings) == 1:
        for training in todo:
            if training.loader is not load_here:
                check_room(shares_of(workers, read=True), WORKERS_ADVICE)
            on_workers(_train, training, workers, f"{training.system}-{training.address}", training.uri)
    elif todo:
        say(f"train {system}: {len(todo)} models, one for each fold and one of all")
        remote: Any = ray.remote(_train).options(
            num_cpus=workers.num_cpus, num_gpus=int(workers.use_gpu), max_retries=MAX_FAILURES
        )
        alone = dataclasses.replace(workers, num_workers=0)
        runs = [dataclasses.replace(t, run=dataclasses.replace(t.run, workers=alone)) for t in todo]
        ray.get([remote.remote(training) for training in runs])


def _embed_missing(training: Training) -> None:
    """Write what a finished model says of tracks that this store does not have it of."""
    modality: str = training.own[0]
    mark, store = training.address, training.store
    present = store.keys(f"embedded/{mark}")
    missing = [ref for ref in training.embeds if embedded_key(mark, modality, ref) not in present]
    if not missing:
        return
    model = load_model(training.uri)
    device = torch.device("cuda" if training.run.workers.use_gpu and torch.cuda.is_available() else "cpu")
    network, task = model.network(device), model.task()
    with Meter(f"embed by {training.label}", float(len(missing)), "tracks") as meter:
        for ref in missing:
            put_embedded(store, modality, mark, task, network, load_track(store, ref, training.own), ref)
            meter.advance(1.0)


def _train(training: Training) -> None:
    """One process' share of a training; the first one writes the model, each its share of embeddings."""
    run, system, store = training.run, training.system, training.store
    rank, processes = distributed.world()
    task, tracks, widths = prepared(training)
    split = {s: [tracks[ref.name] for ref in training.refs if ref.split == s] for s in ("train", "development")}
    device = device_of(run.workers)
    checkpoint_file = CheckpointFile(training.checkpoint, run.workers.checkpoint_steps)
    with Observer(training.label, training.uri, task.settings.max_epochs, rank) as observer:
        fitted = fit(
            task,
            split["train"],
            split["development"],
            device=device,
            on_epoch=observer.epoch,
            on_step=observer.step,
            loader=training.loader,
            checkpoint_file=checkpoint_file,
        )
    if system in MODALITIES:
        for ref in training.embeds[rank::processes]:
            track = load_track(store, ref, training.own)
            put_embedded(store, training.own[0], training.address, task, fitted.model, track, ref)
    distributed.wait_for_all()  # a model.json says that everything before it is there
    if rank == 0:
        mean = np.nanmean(np.concatenate([track.gold for track in split["train"]]), axis=0)
        _save(training, task, fitted, widths, mean.tolist())
        files.delete(checkpoint_file.uri)


def prepared(training: Training) -> tuple[TrackTask, dict[str, Track], dict[str, int]]:
    """What a training needs in each of its processes: its task, its tracks by name, and widths of what it reads."""
    raise_open_file_limit()
    keep_freed_memory()
    tracks = {ref.name: _load(training, ref) for ref in training.refs}
    widths = _widths(training, list(tracks.values()))
    settings = training.run.settings_of(training.system)
    return SYSTEMS[training.system].task(settings, widths, training.run.segment_samples), tracks, widths


def _load(training: Training, ref: TrackRef) -> Track:
    track = load_track(training.store, ref, training.own)
    upstream = {m: of[ref.name] for m, of in training.upstream.items()}
    if upstream:
        return with_embeddings(track, ref, training.store, upstream)
    return with_trunk(track, ref, training.store, training.trunk)


def _widths(training: Training, tracks: list[Track]) -> dict[str, int]:
    """Widths of what a system reads; tracks without evidence have none.

    Raises:
        ValueError: tracks differ, so that their tables were not made alike, or none has any evidence.
    """
    found: dict[str, dict[int, str]] = {}
    needed: set[str] = set()
    for track in tracks:
        widths: dict[str, int | None] = {m: MODALITIES[m].width(part) for m, part in track.parts.items()}
        if training.upstream:
            widths = {m: series.embedding.shape[1] for m, series in track.series.items()}
        needed |= {m for m, width in widths.items() if width is not None}
        for name, width in widths.items():
            if width:
                found.setdefault(name, {})[width] = track.name
    for name, of in found.items():
        if len(of) > 1:
            raise ValueError(f"{name} is not equally wide in all tracks: {of}; they come from different models")
    if training.own and training.system in needed - found.keys():
        raise ValueError(f"no track has any {training.system} features: nothing to train {training.system} on")
    return {name: width for name, of in found.items() for width in of}


def _save(training: Training, task: TrackTask, fitted: Fitted, widths: dict[str, int], mean: list[float]) -> None:
    names = ("valence", "arousal", "mean")
    history = [
        {"epoch": e.number, "loss": e.loss, "learning_rate": e.learning_rate, "skipped": e.skipped}
        | dict(zip(names, map(float, e.ccc), strict=True))
        for e in fitted.history
    ]
    best = {"epoch": fitted.best.number} | dict(zip(names, map(float, fitted.best.ccc), strict=True))
    system, uri = training.system, training.uri
    model = Model(
        system=system,
        uri=uri,
        address=training.address,
        settings=dataclasses.asdict(training.run.settings_of(system)),
        settings_address=training.settings,
        segment_samples=training.run.segment_samples,
        features={str(m): mark for m, mark in training.features.items()},
        widths=widths,
        upstream={str(m): mark for m, mark in training.models.items()},
        folds=training.folds,
        learned_from=[ref.source for ref in training.refs if ref.split == "train"],
        selected_on=[ref.source for ref in training.refs if ref.split == "development"],
        training_mean=mean,
        best=best,
        version=schema.MODEL_VERSION,
        backbone=task.backbone_sizes(fitted.model),
    )
    card = {name: value for name, value in dataclasses.asdict(model).items() if name != "uri"}
    files.write(files.join(uri, "model.safetensors"), save_weights(fitted.model))
    files.write(files.join(uri, "history.json"), json.dumps(history, indent=1).encode())
    files.write(files.join(uri, "model.json"), json.dumps(card, indent=1).encode())
    count = sum(parameter.numel() for parameter in fitted.model.parameters())
    say(
        f"train {training.label}: best of {len(fitted.history)} epochs is {fitted.best.number}, development CCC "
        f"{best['valence']:.3f} valence, {best['arousal']:.3f} arousal, {best['mean']:.3f} mean (selected on it), "
        f"{count:,} parameters"
    )
