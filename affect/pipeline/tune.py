"""A search over a system's settings with Ray Tune: Optuna proposes, ASHA stops what lags behind.

    upstream models --> trials, side by side: features are mapped from the disk, one copy a node --> leaderboard
        --> winner and defaults trained anew --> judged on videos that the search never saw

RUNS/tune/<name>/                      Ray Tune's own files, with TensorBoard logs of every trial
RUNS/tune/<name>/space.json            what was searched: another space needs another name
RUNS/tune/<name>/{trials.csv,best.json,index.html}
RUNS/tune/<name>.checkpoints/<trial>/  where trials go on after a kill; gone when the search ends
"""

import dataclasses
import itertools
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import optuna
import pyarrow as pa
import ray
import ray.train
import ray.train.torch
import torch
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from affect import concordance
from affect.concordance import Score
from affect.corpus.affwild2 import Split
from affect.corpus.hints import Points
from affect.corpus.videos import Places
from affect.evaluation.evaluate import Evaluation
from affect.learning.batches import load_here
from affect.learning.fit import CheckpointFile, Epoch, epochs
from affect.modalities import MODALITIES
from affect.pipeline.cluster import WORKERS_ADVICE, at_most, check_room, shares_of
from affect.pipeline.evaluate import score_models
from affect.pipeline.leaderboard import Leaderboard
from affect.pipeline.train import Training, fold_videos, prepared, sizes, train, train_all
from affect.pipeline.trunk import store_trunk
from affect.pipeline.workers import device_of, scaling
from affect.progress import one_line, say
from affect.report.sweep import Trial, page
from affect.settings.address import address
from affect.settings.paths import flat, setting, with_settings
from affect.settings.run import Run
from affect.settings.spaces import Range, Space
from affect.settings.training import Workers
from affect.storage import files
from affect.storage.store import Store, encode_csv
from affect.tracks.tables import TrackRef
from affect.trained.models import Model

METRIC = "mean"
REDUCTION = 4
"""ASHA lets the best quarter of each rung go on; the best third costs a third more epochs and finds the same winner."""
FIRST_RUNG = 10
"""ASHA's first rung is at this share of the epochs: a tenth."""
MAX_FAILURES = 2
"""Times that a trial is started again after its process died, from its last epoch."""

SPLITS: dict[Split, str] = {
    "held_out": "held-out people",
    "development": "development, which epochs were selected on",
    "train": "people who were TRAINED ON, no measure of anything",
}

Part = tuple[tuple[str, ...], tuple[str, ...]]
"""Names of the tracks to learn from and of those to select on."""


@dataclass(frozen=True)
class Search:
    """What a search is over.

    Args:
        training: of the run's own settings.
        parts: what each trial learns from and is scored on; several for folds.
        space: checked.
        num_trials: how many.
        folder: where it is kept: RUNS/tune/<name>.
        objective: what the score is, in words.
        folds: in how many folds what the system reads was said.
        seed: of what Optuna draws.
    """

    training: Training
    parts: tuple[Part, ...]
    space: Space
    num_trials: int
    folder: str
    objective: str
    folds: int
    seed: int

    @property
    def checkpoints(self) -> str:
        """Where trials keep what they need to go on."""
        return f"{self.folder}.checkpoints"

    @property
    def max_epochs(self) -> int:
        """Epochs of a trial at most."""
        return int(self.training.run.settings_of(self.training.system).fit.max_epochs)


def prepare(
    run: Run,
    refs: Sequence[TrackRef],
    store: Store,
    runs: str,
    space: Space,
    num_trials: int,
    folds: int,
    name: str,
    seed: int,
) -> Search:
    """Train what a search of a run's last system reads, and say what a trial is.

    Args:
        run: the run.
        refs: assembled tracks.
        store: where they are.
        runs: where models are.
        space: checked.
        num_trials: how many.
        folds: folds of training videos whose mean is a trial's score; 0: the development set is.
        name: of the search.
        seed: of what is proposed.
    """
    system = run.systems[-1]
    out_of_fold = folds if run.reads(system) else 0
    training = train_all(run, refs, store, runs, folds=out_of_fold, but=system)[system]
    if system in MODALITIES and MODALITIES[system].trunk_address(run):
        training = dataclasses.replace(training, trunk=store_trunk(run, refs, store))
    parts = folds_of(training, fold_videos(sizes(refs, store), folds)) if folds else development(training)
    where = f"{folds} folds of training videos, the mean of their best epochs" if folds else "the development set"
    folder = files.join(files.absolute(runs), "tune", name)
    return Search(training, parts, space, num_trials, folder, f"mean CCC on {where}", out_of_fold, seed)


def folds_of(training: Training, groups: Sequence[set[str]]) -> tuple[Part, ...]:
    """Parts that each hold one group of training videos out."""
    refs = [ref for ref in training.refs if ref.split == "train"]
    return tuple(
        (
            tuple(ref.name for ref in refs if ref.video not in group),
            tuple(ref.name for ref in refs if ref.video in group),
        )
        for group in groups
    )


def development(training: Training) -> tuple[Part, ...]:
    """The one part that learns from the training set and is scored on the development set."""
    split = {s: tuple(ref.name for ref in training.refs if ref.split == s) for s in ("train", "development")}
    return ((split["train"], split["development"]),)


def search(job: Search) -> list[Trial]:
    """Run a search, or go on with it: trials that ended are not run again.

    Returns:
        All trials, the best first.

    Raises:
        ValueError: the name is taken by another search, or no trial ended with a score.
    """
    note = _note(job)
    path = files.join(job.folder, "space.json")
    if files.exists(path) and json.loads(files.read(path)) != json.loads(json.dumps(note)):
        raise ValueError(
            f"{job.folder} holds a search over another space, other features or with other flags; give --search-name "
            "another name, or delete it"
        )
    files.write(path, json.dumps(note, indent=1).encode())
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its own tables, which the leaderboard replaces
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # which would end a search as if it were over
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # tracebacks of what the leaderboard says in a line
    results = _tuner(job).fit()
    trials = sorted(
        (_trial(results[number]) for number in range(len(results))), key=lambda trial: (-trial.score, trial.name)
    )
    if not np.isfinite(trials[0].score):
        raise ValueError(f"no trial has a score: {trials[0].error}")
    write(job, trials, [])  # what a search came to stays, whatever happens to the judging
    files.delete_folder(job.checkpoints)
    return trials


def _note(job: Search) -> dict[str, Any]:
    """What makes a search this one and no other."""
    plain = {p: dataclasses.asdict(v) if isinstance(v, Range) else list(v) for p, v in job.space.items()}
    training = job.training
    return {
        "system": training.system,
        "space": plain,
        "objective": job.objective,
        "trials": job.num_trials,
        "seed": job.seed,
        "workers": dataclasses.asdict(training.run.workers),
        "defaults": address(training.run.settings_of(training.system), training.address, job.parts),
    }


def _tuner(job: Search) -> tune.Tuner:
    """A new tuner, or the one that was stopped."""
    workers = job.training.run.workers
    resources: dict[str, float] = {"cpu": workers.num_cpus, "gpu": float(workers.use_gpu)}
    room = _room(job)
    if workers.num_workers:
        resources = {"memory": 1.0}  # next to nothing, which Ray Tune does not accept: its workers ask for theirs
    trainable = tune.with_resources(tune.with_parameters(run_trial, job=job), resources)
    if tune.Tuner.can_restore(job.folder):
        say(f"tune: goes on with {job.folder}")
        return tune.Tuner.restore(job.folder, trainable, resume_unfinished=True, resume_errored=True)
    space = {path: _domain(values) for path, values in job.space.items()}
    defaults = {path: setting(job.training.run, path) for path in job.space}
    algorithm = OptunaSearch(metric=METRIC, mode="max", points_to_evaluate=[defaults], seed=job.seed)
    rungs = ASHAScheduler(
        time_attr="epochs",
        # One more than there are: a trial ends by itself. Stopped at its end, Ray Train's controller of a trial on
        # workers may die between its cleaner and its placement group, which then holds its CPUs until the job ends.
        max_t=job.max_epochs + 1,
        grace_period=max(1, job.max_epochs // FIRST_RUNG),
        reduction_factor=REDUCTION,
    )
    folder, name = job.folder.rsplit("/", 1)
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            search_alg=algorithm,
            scheduler=rungs,
            num_samples=job.num_trials,
            max_concurrent_trials=room,
            reuse_actors=not workers.num_workers,
            trial_dirname_creator=_name_of,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=folder,
            verbose=0,
            callbacks=[Leaderboard(job.num_trials, tuple(job.space))],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
        ),
    )


def _name_of(trial: Any) -> str:  # noqa: ANN401 -- Ray Tune's own class
    """A trial's folder: its number, from 1, and Ray Tune's own name."""
    return f"{int(trial.experiment_tag.partition('_')[0]):03d}-{trial.trial_id}"


def _room(job: Search) -> int:
    """Trials at once: as many as the cluster has room for, with all of their workers and a reader of waveforms.

    Raises:
        ValueError: there is no room for one.
    """
    workers = job.training.run.workers
    shares = shares_of(
        dataclasses.replace(workers, num_workers=max(1, workers.num_workers)), read=job.training.loader is not load_here
    )
    check_room(shares, WORKERS_ADVICE)
    cpus = sum(share.cpus for share in shares)
    free = ray.available_resources().get("CPU", 0.0)
    if free < cpus:  # a trial has all of its workers or none, so that trials cannot hold each other up
        say(f"tune: a trial asks for {cpus:g} CPUs and {free:g} are free: it waits until others give theirs back")
    return at_most(shares, job.num_trials)


def _domain(values: tuple[Any, ...] | Range) -> Any:  # noqa: ANN401 -- Ray Tune's own classes
    return tune.loguniform(values.low, values.high) if isinstance(values, Range) else tune.choice(list(values))


def run_trial(settings: dict[str, Any], job: Search) -> None:
    """Train with some settings and report every epoch; on Ray Train's workers if the run asks for some.

    What would fail again is reported, with the lowest score that there is; a process that dies is started again.
    """
    try:
        training = dataclasses.replace(job.training, run=with_settings(job.training.run, settings))
    except ValueError as error:
        tune.report(_failure(error))
        return
    folder = files.join(job.checkpoints, tune.get_context().get_trial_id())
    work = {"training": training, "parts": job.parts, "folder": folder}
    workers = training.run.workers
    if workers.num_workers:
        _on_workers(work, workers)
    else:
        torch.set_num_threads(max(1, int(workers.num_cpus)))
        _try_parts(work, tune.report)


def _failure(error: Exception) -> dict[str, Any]:
    nothing = {"valence": -1.0, "arousal": -1.0, METRIC: -1.0, "epochs": 0}
    return {**nothing, "error": one_line(error)}


def _on_workers(work: Mapping[str, Any], workers: Workers) -> None:
    trainer = ray.train.torch.TorchTrainer(
        _worker,
        train_loop_config=dict(work),
        scaling_config=scaling(workers),
        run_config=ray.train.RunConfig(
            name="workers",
            storage_path=files.absolute(work["folder"]),
            callbacks=cast(Any, [TuneReportCallback()]),
            failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    trainer.fit()


def _worker(work: dict[str, Any]) -> None:
    _try_parts(work, ray.train.report)


def _try_parts(work: Mapping[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
    try:
        _train_parts(work, report)
    except (ValueError, FloatingPointError) as error:
        report(_failure(error))


def _train_parts(work: Mapping[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
    """Train a trial's models side by side, an epoch of each in turn; report the mean of their best scores so far."""
    training: Training = work["training"]
    task, tracks, _ = prepared(training)
    runs = [
        epochs(
            task,
            [tracks[name] for name in learn],
            [tracks[name] for name in select],
            device=device_of(training.run.workers),
            loader=training.loader,
            checkpoint_file=CheckpointFile(
                files.join(work["folder"], f"{number}.safetensors"), training.run.workers.checkpoint_steps
            ),
        )
        for number, (learn, select) in enumerate(work["parts"])
    ]
    best: list[Epoch] = []
    last: list[Epoch] = []
    for step in itertools.zip_longest(*runs):
        last = [each[0] if each else before for each, before in itertools.zip_longest(step, last)]
        best = [max(pair, key=lambda epoch: epoch.ccc[2]) for pair in zip(best or last, last, strict=True)]
        report(_metrics(task.settings, best, last))


def _metrics(fit: Any, best: Sequence[Epoch], last: Sequence[Epoch]) -> dict[str, Any]:  # noqa: ANN401 -- a Fit
    valence, arousal, mean = np.mean([epoch.ccc for epoch in best], axis=0).tolist()
    ended = all(
        at.number >= fit.max_epochs or at.number - top.number >= fit.stop_patience
        for at, top in zip(last, best, strict=True)
    )
    return {
        "valence": valence,
        "arousal": arousal,
        METRIC: mean,
        "now": float(np.mean([epoch.ccc[2] for epoch in last])),
        "lowest": float(min(epoch.ccc[2] for epoch in best)),
        "highest": float(max(epoch.ccc[2] for epoch in best)),
        "epochs": max(epoch.number for epoch in last),
        "ended": ended,
    }


def _trial(result: Any) -> Trial:  # noqa: ANN401 -- Ray Tune's own class
    metrics = result.metrics or {}
    error = metrics.get("error") or (one_line(result.error) if result.error else "")
    frame = result.metrics_dataframe
    curve: tuple[float, ...] = ()
    if frame is not None and "now" in frame:  # epochs come again where a process died
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
    """Train winner and defaults anew, judge both, say what came of the search and add it to the search's page.

    Args:
        job: the search.
        trials: the best first.
        sets: places of videos, and folders of labels.
        hints: points on the person that a track means, by track.
    """
    training = job.training
    models: dict[str, Model] = {}
    for run in (best_run(job, trials), training.run):
        model = train(run, list(training.refs), training.store, training.runs, folds=job.folds)[-1]
        models[model.address] = model
    both = list(models.values())
    judged: dict[str, Evaluation] = {}
    for videos, labels in sets:
        evaluation = score_models(training.run, both, videos, labels, training.store, hints)
        judged[SPLITS[evaluation.split]] = evaluation
    if SPLITS["held_out"] not in judged:
        say("tune: no held-out people are given: what follows is of people on whom epochs were selected")
    lines = verdict(trials, judged)
    for line in lines:
        say(line)
    write(job, trials, lines)
    say(f"tune: {job.folder}/index.html, best.json, trials.csv")


def best_run(job: Search, trials: Sequence[Trial]) -> Run:
    """The run with the best trial's settings, under a name of its own."""
    run = with_settings(job.training.run, trials[0].settings)
    return dataclasses.replace(run, name=f"{run.name}-{job.folder.rsplit('/', 1)[-1]}")


def verdict(trials: Sequence[Trial], judged: Mapping[str, Evaluation]) -> list[str]:
    """What the winner is worth, and how much of its score was luck.

    Args:
        trials: the best first.
        judged: winner and defaults, in this order, by what they were judged on.
    """
    best = trials[0]
    folds = f", {best.lowest:.3f} to {best.highest:.3f} over folds" if best.lowest < best.highest else ""
    lines = [f"in the search: mean CCC {best.score:.3f}{folds}, the highest of {len(trials)} trials"]
    for place, evaluation in judged.items():
        winner, *others = (evaluation.truth.moments(answers.tracks) for answers in evaluation.answers)
        scores = [concordance.score(winner), *map(concordance.score, others)]
        shrink = f", {scores[0].ccc[2] - best.score:+.3f} against the search"
        lines.append(f"{place}: winner {_interval(scores[0])}{shrink}")
        if others:
            gain = _interval(concordance.difference(winner, others[0]), "{:+.3f}")
            lines += [f"{place}: defaults {_interval(scores[1])}", f"{place}: winner minus defaults {gain}, paired"]
        else:
            lines.append(f"{place}: the winner has the defaults' settings")
    return lines


def _interval(score: Score, form: str = "{:.3f}") -> str:
    return f"{score.text(2, form=form)} over {score.num_units} videos"


def write(job: Search, trials: Sequence[Trial], judged: Sequence[str]) -> None:
    """Write the trials, the best settings and the page.

    Args:
        job: the search.
        trials: the best first.
        judged: lines on how the winner did where the search did not look.
    """
    rows = [
        {"trial": t.name, "status": t.status, "mean": t.score, "valence": t.valence, "arousal": t.arousal}
        | {"epochs": t.epochs, "seconds": t.seconds, **{p: str(v) for p, v in t.settings.items()}, "error": t.error}
        for t in trials
    ]
    run: Run = job.training.run
    best: dict[str, Any] = {"recipe": run.name, "name": best_run(job, trials).name, "systems": run.systems}
    winner = best_run(job, trials)
    best["settings"] = {
        path: value
        for system in run.systems
        for path, value in flat(winner.settings_of(system), winner.fields_of_systems()[system]).items()
    }
    files.write(files.join(job.folder, "trials.csv"), encode_csv(pa.Table.from_pylist(rows)))
    files.write(files.join(job.folder, "best.json"), json.dumps(best, indent=1).encode())
    defaults = {path: setting(run, path) for path in job.space}
    rungs = list(itertools.takewhile(lambda at: at < job.max_epochs, _rungs(job.max_epochs)))
    title = f"{job.training.system} of recipe {run.name}: {len(trials)} trials"
    ranges = {path for path, values in job.space.items() if isinstance(values, Range)}
    html = page(title, job.objective, trials, defaults, ranges, rungs, judged)
    files.write(files.join(job.folder, "index.html"), html.encode())


def _rungs(max_epochs: int) -> itertools.accumulate:
    first = max(1, max_epochs // FIRST_RUNG)
    return itertools.accumulate(itertools.repeat(REDUCTION), lambda at, factor: at * factor, initial=first)
