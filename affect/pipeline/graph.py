"""Every distributed step of the system, one function each: rows in, rows out, in any order, as soon as each is done.

    videos --probe--> clips --extract--> features --assemble--> tracks --train, trunk--> models --judge--> scores
                                            |                                              |
                                            +---------------------predict------------------+--> tables --films, pages

A task per row is :func:`affect.pipeline.streams.each`, a pool of actors :func:`affect.pipeline.streams.pool`. Training
runs on Ray Train (:mod:`affect.pipeline.workers`), a search on Ray Tune (:mod:`affect.pipeline.tune`).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import ray.data

from affect.modalities import KINDS
from affect.pipeline.extract_actor import ExtractActor
from affect.pipeline.judge_actor import JudgeActor
from affect.pipeline.predict_actor import PredictActor
from affect.pipeline.streams import Row, each, on_actors, pool
from affect.pipeline.trunk_actor import TrunkActor
from affect.plan.probe import probe_video
from affect.report.films import film_row
from affect.report.people import film_of_people
from affect.report.video_page import write_page
from affect.settings.run import Run
from affect.storage.store import Store
from affect.tracks.assemble_track import assemble_track
from affect.trained.models import Model

FILM_CPUS = 0.5
"""CPUs of making a film or a page."""


def probe(rows: Sequence[Row], store: Store) -> Iterator[Row]:
    """Videos: read what their containers say."""
    return each(rows, partial(probe_video, store=store), 0.5)


def extract(rows: Sequence[Row], kinds: Sequence[str], run: Run, given: tuple[Any, ...]) -> Iterator[Row]:
    """Clips: through one pool of actors per kind of features, all pools at work at once."""
    stream: ray.data.Dataset = ray.data.from_items(list(rows), override_num_blocks=len(rows))
    for kind in kinds:
        stage = KINDS[kind].stage(run)
        fewest = min(stage.min_actors, len(rows))
        stream = on_actors(stream, ExtractActor, (kind, run, *given), stage, fewest, stage.max_actors)
    yield from stream.iter_rows()


def assemble(rows: Sequence[Row], given: Mapping[str, Any]) -> Iterator[Row]:
    """Labelled tracks: from features of clips to tables of a person."""
    return each(rows, partial(assemble_track, **given), 0.5)


def trunk(rows: Sequence[Row], run: Run, store: Store) -> Iterator[Row]:
    """Videos: states of the audio model's frozen layers."""
    return pool(rows, TrunkActor, (run.wavlm, run.segment_samples, store), run.inference)


def judge(rows: Sequence[Row], run: Run, models: Sequence[Model], store: Store) -> Iterator[Row]:
    """Labelled tracks: answers of every model."""
    return pool(rows, JudgeActor, (models, store), run.inference)


def predict(rows: Sequence[Row], run: Run, given: tuple[Any, ...]) -> Iterator[Row]:
    """New videos: valence and arousal of every frame and person."""
    return pool(rows, PredictActor, (run, *given), run.inference)


def films(rows: Sequence[Row], given: Mapping[str, Any]) -> Iterator[Row]:
    """Predicted videos: a film with their people drawn onto them."""
    return each(rows, partial(film_row, **given), FILM_CPUS)


def pages(rows: Sequence[Row], given: Mapping[str, Any]) -> Iterator[Row]:
    """Predicted videos: a page of their report."""
    return each(rows, partial(write_page, **given), FILM_CPUS)


def people(rows: Sequence[Row], given: Mapping[str, Any]) -> Iterator[Row]:
    """Extracted videos: a film and tables of their people."""
    return each(rows, partial(film_of_people, **given), 0.5)
