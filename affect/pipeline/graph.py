"""Every distributed step of the system, one function each: rows in, rows out, in any order, as soon as each is done.

    videos --probe--> clips --extract--> features --assemble--> tracks --train, trunk--> models --judge--> scores
                                            |                                              |
                                            +---------------------predict------------------+--> tables --films, pages

A task per row is :func:`affect.pipeline.streams.each`, a pool of actors :func:`affect.pipeline.streams.pool`. Training
runs on Ray Train or as Ray tasks (:mod:`affect.pipeline.workers`), a search on Ray Tune (:mod:`affect.pipeline.tuner`).

A step imports its models itself, so that a job, and every worker of Ray that reads this file, loads what it runs: an
extraction needs neither torch nor transformers in its own process.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from affect.modalities import stages_of
from affect.pipeline.extract_actor import ExtractActor
from affect.pipeline.streams import Row, each, in_blocks, on_actors, pool, stream_of_blocks
from affect.plan.probe import probe_video
from affect.settings.encoder import EncoderRun
from affect.settings.run import Run
from affect.storage.store import Store
from affect.trained.search import Search
from affect.trained.training import EncoderTraining, Training

FILM_CPUS = 0.5
"""CPUs of a task that makes a film or a page."""
MAX_PICTURE_TASKS = 64
"""Most tasks that check labelled pictures."""


def probe(rows: Sequence[Row], store: Store) -> Iterator[Row]:
    """Videos: length, streams and fingerprint of each, read from its container."""
    return each(rows, partial(probe_video, store=store), 0.5)


def extract(rows: Sequence[Row], kinds: Sequence[str], run: Run, given: tuple[Any, ...]) -> Iterator[Row]:
    """Clips: one pool of actors per kind of features, all pools at once.

    An actor that dies takes its block along. Clips of it that are finished are in the store and are not done again.
    """
    stages = stages_of(run, kinds)
    stream = stream_of_blocks(in_blocks(rows, max(stage.max_actors for stage in stages.values())))
    for kind, stage in stages.items():
        fewest, most = min(stage.min_actors, len(rows)), min(stage.max_actors, len(rows))
        stream = on_actors(stream, ExtractActor, (kind, run, *given), stage, fewest, most)
    yield from stream.iter_rows()


def assemble(rows: Sequence[Row], given: Mapping[str, Any]) -> Iterator[Row]:
    """Labelled tracks: a person's tables from the features of clips."""
    from affect.tracks.assemble_track import assemble_track

    return each(rows, partial(assemble_track, **given), 0.5)


def trunk(rows: Sequence[Row], run: Run, store: Store) -> Iterator[Row]:
    """Videos: states of the audio model's frozen layers."""
    from affect.pipeline.trunk_actor import TrunkActor

    return pool(rows, TrunkActor, (run.wavlm, run.segment_samples, store), run.inference, "trunk", store)


def train(training: Training) -> None:
    """One model: in this process or on Ray Train workers."""
    from affect.pipeline.train_model import train_model
    from affect.pipeline.workers import on_workers

    on_workers(train_model, training, training.run.workers, f"{training.system}-{training.address}", training.uri)


def train_folds(trainings: Sequence[Training]) -> None:
    """One system's models of all folds: a Ray task each."""
    from affect.pipeline.train_model import train_model
    from affect.pipeline.workers import as_tasks

    alone = dataclasses.replace(trainings[0].run.workers, num_workers=0)
    jobs = [dataclasses.replace(each, run=dataclasses.replace(each.run, workers=alone)) for each in trainings]
    as_tasks(train_model, jobs, alone)


def check_pictures(rows: Sequence[Row], run: EncoderRun) -> Iterator[Row]:
    """Labelled pictures: which ones can be read; rows in order."""
    from affect.face.encoder_task import GradaTask
    from affect.pipeline import encoder_worker
    from affect.pipeline.stream import in_order

    work = partial(encoder_worker.check_pictures, task=GradaTask(run))
    return in_order(rows, min(len(rows), MAX_PICTURE_TASKS), work, run.workers.loader_cpus)


def train_encoder(job: EncoderTraining) -> None:
    """The frame encoder: in this process or on Ray Train workers."""
    from affect.pipeline.encoder_worker import train_share
    from affect.pipeline.workers import on_workers

    on_workers(train_share, job, job.run.workers, "grada", job.folder)


def search(job: Search, num_parallel: int) -> Any:  # noqa: ANN401 -- Ray Tune's results
    """Settings of one system: a training each, those that lag behind are stopped."""
    from affect.pipeline.trial import run_trial
    from affect.pipeline.tuner import tuner

    return tuner(run_trial, job, num_parallel).fit()


def judge(rows: Sequence[Row], run: Run, models: Sequence[Any], store: Store) -> Iterator[Row]:
    """Labelled tracks: predictions of every model."""
    from affect.pipeline.judge_actor import JudgeActor

    return pool(rows, JudgeActor, (models, store), run.inference, "evaluate", store)


def predict(rows: Sequence[Row], run: Run, given: tuple[Any, ...], store: Store) -> Iterator[Row]:
    """New videos: valence and arousal of every frame and person."""
    from affect.pipeline.predict_actor import PredictActor

    return pool(rows, PredictActor, (run, *given), run.inference, "predict", store)


def exports(rows: Sequence[Row], out: str) -> Iterator[Row]:
    """Predicted videos: a file for ELAN."""
    from affect.trained.export import export_elan

    return each(rows, partial(export_elan, out=out), 0.5)


def films(rows: Sequence[Row], given: Mapping[str, Any]) -> Iterator[Row]:
    """Predicted videos: a film with boxes and predictions of the people."""
    from affect.report.films import film_row

    return each(rows, partial(film_row, **given), FILM_CPUS)


def pages(rows: Sequence[Row], given: Mapping[str, Any]) -> Iterator[Row]:
    """Predicted videos: a page of the report."""
    from affect.report.video_page import write_page

    return each(rows, partial(write_page, **given), FILM_CPUS)


def people(rows: Sequence[Row], given: Mapping[str, Any]) -> Iterator[Row]:
    """Extracted videos: a film and tables of their people."""
    from affect.report.people import film_of_people

    return each(rows, partial(film_of_people, **given), 0.5)
