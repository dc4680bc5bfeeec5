"""A search as Ray Tune runs it: Optuna proposes settings, ASHA stops trials that lag behind."""

from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from affect.pipeline.leaderboard import Leaderboard, trial_number
from affect.pipeline.trial import MAX_FAILURES
from affect.progress import say
from affect.settings.paths import setting
from affect.settings.spaces import Range
from affect.trained.search import METRIC, REDUCTION, Search


def tuner(trial: Callable[..., None], job: Search, num_parallel: int) -> tune.Tuner:
    """A new tuner, or that of a search that was stopped.

    Args:
        trial: runs one trial; takes the proposed settings and ``job``.
        job: the search.
        num_parallel: most trials at the same time.
    """
    workers = job.training.run.workers
    resources: dict[str, float] = {"cpu": workers.num_cpus, "gpu": float(workers.use_gpu)}
    if workers.num_workers:
        resources = {"memory": 1.0}  # the workers reserve theirs; Ray Tune refuses an empty request
    trainable = tune.with_resources(tune.with_parameters(trial, job=job), resources)
    if tune.Tuner.can_restore(job.folder):
        say(f"tune: goes on with {job.folder}")
        return tune.Tuner.restore(job.folder, trainable, resume_unfinished=True, resume_errored=True)
    defaults = {path: setting(job.training.run, path) for path in job.space}
    folder, name = job.folder.rsplit("/", 1)
    return tune.Tuner(
        trainable,
        param_space={path: _domain(values) for path, values in job.space.items()},
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            search_alg=OptunaSearch(metric=METRIC, mode="max", points_to_evaluate=[defaults], seed=job.seed),
            scheduler=_scheduler(job),
            num_samples=job.num_trials,
            max_concurrent_trials=num_parallel,
            reuse_actors=not workers.num_workers,
            trial_dirname_creator=folder_name,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=folder,
            verbose=0,
            callbacks=[Leaderboard(job.num_trials, tuple(job.space))],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
        ),
    )


def _scheduler(job: Search) -> ASHAScheduler:
    """ASHA over the epochs of the trials."""
    return ASHAScheduler(
        time_attr="epochs",
        # One more than a trial has, so that it ends by itself. If ASHA stops a trial on workers at its end, Ray Train's
        # controller may die after its cleaner and before its placement group, which then keeps its CPUs until the job
        # ends.
        max_t=job.max_epochs + 1,
        grace_period=job.first_rung,
        reduction_factor=REDUCTION,
    )


def folder_name(trial: Any) -> str:  # noqa: ANN401 -- Ray Tune's own class
    """Folder name of a trial: its number, from 1, and Ray Tune's id."""
    return f"{trial_number(trial)}-{trial.trial_id}"


def _domain(values: tuple[Any, ...] | Range) -> Any:  # noqa: ANN401 -- Ray Tune's own classes
    """Values or a range of a setting, as Ray Tune has them."""
    return tune.loguniform(values.low, values.high) if isinstance(values, Range) else tune.choice(list(values))
