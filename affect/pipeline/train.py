"""Training: the missing models of a run's systems on assembled tracks, modalities before fusions.

tracks --> face | behavior | audio --> embedded/<model address>/<track> --> dcmmoe | raav

Training tracks of a fusion are embedded by models that were trained on the same tracks (in the sample) or, with k
folds, by models that were trained without the track's video. Development tracks are always embedded by the model of
all training tracks.
"""

import dataclasses
import time
from collections.abc import Sequence

from affect.corpus.labels import Development
from affect.modalities import MODALITIES, SYSTEMS
from affect.pipeline import graph
from affect.pipeline.streams import check_inference
from affect.pipeline.train_model import is_streamed
from affect.pipeline.trunk import store_trunk
from affect.pipeline.workers import check_workers
from affect.plan.addresses import feature_addresses
from affect.progress import say
from affect.report.training import training_report
from affect.settings.run import Run
from affect.storage import files
from affect.storage.speed import record as record_speed
from affect.storage.speed import training_key
from affect.storage.store import Store
from affect.tracks.tables import TrackRef
from affect.trained.embed_tracks import embed_missing
from affect.trained.folds import folds_of
from affect.trained.models import Model, load_model
from affect.trained.runs import note_run, run_name
from affect.trained.training import Training


def train(run: Run, refs: list[TrackRef], store: Store, runs: str, *, folds: int = 0) -> list[Model]:
    """Trains a run's systems, modalities before fusions; finished models are skipped.

    Args:
        run: the run.
        refs: assembled tracks.
        store: store of the tracks; embeddings are written to it.
        runs: folder of the models.
        folds: number of folds of videos for the embeddings that fusions train on; 0: in the sample.

    Returns:
        The models, in the order of the run's systems.

    Raises:
        ValueError: a split has no track, there are fewer videos than folds, or folds are given without a fusion.
    """
    models = [load_model(training.uri) for training in prepare_systems(run, refs, store, runs, folds=folds).values()]
    training_report(runs, run_name(run.name, folds), models)
    return models


def prepare_systems(
    run: Run, refs: Sequence[TrackRef], store: Store, runs: str, *, folds: int = 0, untrained: str | None = None
) -> dict[str, Training]:
    """Trains and embeds whatever the run's systems need, and the systems themselves.

    Args:
        run: the run.
        refs: assembled tracks.
        store: store of the tracks; embeddings are written to it.
        runs: folder of the models.
        folds: as in :func:`train`.
        untrained: the run's last system, if it is prepared but not trained; None to train all.

    Returns:
        The training of each system, on all training tracks.

    Raises:
        ValueError: as in :func:`train`.
    """
    if folds and not any(run.reads(system) for system in run.systems):
        raise ValueError(f"--folds {folds}: recipe {run.name} has no fusion, which alone learns from folds")
    solved = all(SYSTEMS[system].solved for system in run.systems)
    for split in ("train",) if solved else ("train", "development"):
        if not any(ref.split == split for ref in refs):
            raise ValueError(f"no usable track in the {split} split")
    groups = folds_of(refs, store, folds) if folds else []
    runs, addresses = files.absolute(runs), feature_addresses(run)
    trainings: dict[str, Training] = {}
    upstream: dict[str, dict[str, str]] = {}
    for system in run.systems:
        read = {m: upstream[m] for m in run.reads(system)}
        training = Training(
            run=run,
            system=system,
            refs=tuple(refs),
            embeds=tuple(refs),
            upstream=read,
            models={m: trainings[m].address for m in read},
            settings=SYSTEMS[system].settings_address(run),
            features={m: addresses[m] for m in run.extracted_for(system)},
            folds=folds if read else 0,
            store=store,
            runs=runs,
            label=system,
        )
        trainings[system] = training
        if system == untrained:
            continue
        group = [training]
        if groups and not read and any(system in run.reads(other) for other in run.systems):
            group = _with_folds(training, groups)
            trainings[system] = group[0]
        _train_group(group)
        if system in MODALITIES:
            for each in group:
                embed_missing(each)
            upstream[system] = {ref.name: each.address for each in group for ref in each.embeds}
        note_run(run, runs, run_name(run.name, folds), store.uri, {system: training.address})
    return trainings


def check(run: Run, folds: int, rotations: int = 0) -> Development:
    """Checks that training can start, before hours of extraction.

    Args:
        run: the run.
        folds: folds of the embeddings that fusions train on; 0: no folds.
        rotations: folds of a cross-validation; 0: none.

    Returns:
        Whether a development set is needed.

    Raises:
        WeightsError: there is no such pretrained audio model; weights of a hub are downloaded later.
        ValueError: the number of folds is impossible, or the training processes have no room on the cluster or no GPU.
    """
    if folds == 1 or folds < 0:
        raise ValueError(f"--folds {folds}: give 0 for none, or 2 or more")
    if folds and rotations:
        raise ValueError("--folds and --cross-validate cannot be given together")
    for system in run.systems:
        SYSTEMS[system].check(run)
    trained = [MODALITIES[m] for m in run.modalities]
    if any(modality.trunk_address(run) for modality in trained):
        check_inference(run.inference)
    if not all(SYSTEMS[system].solved for system in run.systems):
        streamed = run.workers.num_workers > 0 and not folds and any(modality.streamed for modality in trained)
        check_workers(run.workers, read=streamed, tasks=folds > 0)
    if rotations:
        return "unused"
    return "optional" if all(SYSTEMS[system].solved for system in run.systems) else "required"


def _with_folds(training: Training, groups: Sequence[set[str]]) -> list[Training]:
    """The training on all videos, which embeds development tracks, and one training without each group of videos."""
    development = tuple(ref for ref in training.refs if ref.split != "train")
    whole = dataclasses.replace(training, embeds=development)
    without = [
        whole.without(videos, f"{training.system} without fold {number}")
        for number, videos in enumerate(groups, start=1)
    ]
    return [whole, *without]


def _train_group(trainings: Sequence[Training]) -> None:
    """Trains a system's models; records the speed of those that were trained from start to end."""
    new = [t for t in trainings if not t.finished and not files.exists(t.checkpoint)]
    start = time.monotonic()
    _train_missing(trainings)
    if new and not SYSTEMS[new[0].system].solved:
        amount = sum(training.num_frames_seen for training in new)
        record_speed(new[0].runs, *training_key(new[0].run, new[0].system), amount, time.monotonic() - start, 0.0)


def _train_missing(trainings: Sequence[Training]) -> None:
    """Trains the models that are not finished: a single one on the run's workers, those of folds as Ray tasks."""
    missing = []
    for training in trainings:
        if training.finished:
            say(f"train {training.label}: there already, {training.uri}")
        else:
            missing.append(training)
    run, system = trainings[0].run, trainings[0].system
    if missing and system in MODALITIES and MODALITIES[system].trunk_address(run):
        refs = {ref for training in missing for ref in training.refs}
        trunk = store_trunk(run, sorted(refs, key=lambda ref: ref.name), trainings[0].store)
        missing = [dataclasses.replace(training, trunk=trunk) for training in missing]
    if len(trainings) == 1:
        for training in missing:
            if is_streamed(training):
                check_workers(run.workers, read=True)
            graph.train(training)
    elif missing:
        say(f"train {system}: {len(missing)} models, one for each fold and one of all")
        graph.train_folds(missing)
