"""A search over a system's settings, and its conclusion on videos that the search never used.

    upstream models --> trials in parallel: features are memory-mapped, one copy per node --> leaderboard
        --> winner and defaults trained anew --> judged on held-out videos

Folder of a search: :mod:`affect.trained.search`.
"""

import dataclasses
import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import ray

from affect.corpus.hints import Points
from affect.corpus.videos import Places
from affect.evaluation.evaluate import Evaluation
from affect.modalities import MODALITIES, SYSTEMS
from affect.pipeline import graph
from affect.pipeline.cluster import WORKERS_ADVICE, at_most, check_room, shares_of
from affect.pipeline.evaluate import score_models
from affect.pipeline.train import prepare_systems, train
from affect.pipeline.train_model import is_streamed
from affect.pipeline.trunk import store_trunk
from affect.pipeline.tuner import folder_name as _name_of  # noqa: F401 -- earlier searches have pickled this name
from affect.progress import one_line, say
from affect.report.outcome import SPLITS, best_run, verdict, write_outcome
from affect.report.sweep import Trial
from affect.settings.run import Run
from affect.storage import files
from affect.storage.store import Store
from affect.tracks.tables import TrackRef
from affect.trained.folds import Part, development_part, fold_parts, folds_of
from affect.trained.models import Model
from affect.trained.search import METRIC, Search, SearchOptions


def prepare(run: Run, refs: Sequence[TrackRef], store: Store, runs: str, options: SearchOptions) -> Search:
    """Trains the models that the run's last system reads, and describes the search over that system.

    Args:
        run: the run.
        refs: assembled tracks.
        store: store of the tracks; embeddings are written to it.
        runs: folder of the models.
        options: options of the search.

    Raises:
        ValueError: as in :func:`affect.pipeline.train.train`.
    """
    system, folds = run.systems[-1], options.folds
    if SYSTEMS[system].solved:
        raise ValueError(f"{system} is solved in closed form, not searched: jobs/train.py {run.name}")
    out_of_fold = folds if run.reads(system) else 0
    training = prepare_systems(run, refs, store, runs, folds=out_of_fold, untrained=system)[system]
    if system in MODALITIES and MODALITIES[system].trunk_address(run):
        training = dataclasses.replace(training, trunk=store_trunk(run, refs, store))
    parts: tuple[Part, ...] = (development_part(refs),)
    scored_on = "the development set"
    if folds:
        parts = fold_parts(refs, folds_of(refs, store, folds))
        scored_on = f"{folds} folds of training videos, the mean of their best epochs"
    return Search(
        training=training,
        parts=parts,
        space=options.space,
        num_trials=options.num_trials,
        folder=files.join(files.absolute(runs), "tune", options.name),
        objective=f"mean CCC on {scored_on}",
        folds=out_of_fold,
        seed=options.seed,
    )


def search(job: Search) -> list[Trial]:
    """Runs a search, or resumes it: finished trials are skipped.

    Returns:
        All trials, best first.

    Raises:
        ValueError: the name belongs to another search, the cluster has no room for a trial, or no trial has a score.
    """
    identity = job.identity
    path = files.join(job.folder, "space.json")
    if files.exists(path) and json.loads(files.read(path)) != json.loads(json.dumps(identity)):
        raise ValueError(
            f"{job.folder} holds a search over another space, other features or with other flags; give --search-name "
            "another name, or delete it"
        )
    files.write(path, json.dumps(identity, indent=1).encode())
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Ray Tune's own tables; the leaderboard replaces them
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # it would end an interrupted search as if it were complete
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # tracebacks; the leaderboard prints each error in a line
    results = graph.search(job, _num_parallel(job))
    trials = sorted(
        (_trial(results[number]) for number in range(len(results))), key=lambda trial: (-trial.score, trial.name)
    )
    if not np.isfinite(trials[0].score):
        raise ValueError(f"no trial has a score: {trials[0].error}")
    write_outcome(job, trials, [])  # written now, because judging the winner may fail
    files.delete_folder(job.checkpoints)
    return trials


def _num_parallel(job: Search) -> int:
    """Number of trials at the same time: as many as the cluster has room for, with workers and a reading task.

    Raises:
        ValueError: there is no room for one.
    """
    workers = job.training.run.workers
    at_least_one = dataclasses.replace(workers, num_workers=max(1, workers.num_workers))
    shares = shares_of(at_least_one, read=is_streamed(job.training))
    check_room(shares, WORKERS_ADVICE)
    cpus = sum(share.cpus for share in shares)
    free = ray.available_resources().get("CPU", 0.0)
    if free < cpus:  # a trial gets all of its workers or none, so that trials cannot block each other
        say(f"tune: a trial asks for {cpus:g} CPUs and {free:g} are free: it waits until other jobs release theirs")
    return at_most(shares, job.num_trials)


def _trial(result: Any) -> Trial:  # noqa: ANN401 -- Ray Tune's own class
    """Result of a trial, from the metrics that it reported."""
    metrics = result.metrics or {}
    error = metrics.get("error") or (one_line(result.error) if result.error else "")
    frame = result.metrics_dataframe
    curve: tuple[float, ...] = ()
    if frame is not None and "now" in frame:  # after a process died, epochs are reported again
        curve = tuple(map(float, frame.dropna(subset=["now"]).drop_duplicates("epochs", keep="last")["now"]))
    return Trial(
        name=result.path.rsplit("/", 1)[-1].partition("-")[0],
        settings=dict(result.config or {}),
        status="failed" if error else "ended" if metrics.get("ended") else "stopped",
        score=-np.inf if error else float(metrics.get(METRIC, -np.inf)),
        valence=float(metrics.get("valence", np.nan)),
        arousal=float(metrics.get("arousal", np.nan)),
        lowest=float(metrics.get("lowest", np.nan)),
        highest=float(metrics.get("highest", np.nan)),
        epochs=int(metrics.get("epochs", 0)),
        seconds=float(metrics.get("time_total_s", 0.0)),
        curve=() if error else curve,
        error=error,
    )


def conclude(
    job: Search, trials: Sequence[Trial], sets: Sequence[tuple[Places, str]], hints: Mapping[str, Points]
) -> None:
    """Trains the winner and the defaults anew, judges both, prints the verdict and adds it to the search's page.

    Args:
        job: the search.
        trials: best first.
        sets: places of videos and folder of their labels, for each set that is judged.
        hints: points on the person that a track means, by track.
    """
    training = job.training
    models: dict[str, Model] = {}
    for run in (best_run(job, trials), training.run):
        model = train(run, list(training.refs), training.store, training.runs, folds=job.folds)[-1]
        models[model.address] = model
    judged: dict[str, Evaluation] = {}
    for videos, labels in sets:
        evaluation = score_models(training.run, list(models.values()), videos, labels, training.store, hints)
        judged[SPLITS[evaluation.split]] = evaluation
    if SPLITS["held_out"] not in judged:
        say("tune: no held-out people are given: the following scores are of people on whom epochs were selected")
    lines = verdict(trials, judged)
    for line in lines:
        say(line)
    write_outcome(job, trials, lines)
    say(f"tune: {job.folder}/index.html, best.json, trials.csv")
