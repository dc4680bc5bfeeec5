"""Page of a hyperparameter search: all trials, importance of settings, scores of the winner on other data."""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from affect.report.figures import chart_style, svg, template

SHOWN = 5
"""Number of best trials with a curve."""
MIN_FOR_IMPORTANCE = 6
"""Minimum number of scored trials for importance."""
_PARALLEL = (
    "One line per trial through the values of its settings; the last axis and the colour are its score. The winner is "
    "thick, the defaults are dashed."
)
_SCATTER = "One mark per trial: circle, ended; triangle, stopped early. The ring marks the defaults."
_IMPORTANCE = (
    "Share of the difference between the best trials and the others that each setting explains (PED-ANOVA). With few "
    "trials the values are unreliable."
)
_RUNGS = (
    "Score of each trial after each epoch. At a dashed line the best quarter continues and the others are stopped; the "
    "number is how many trials reached it."
)
_CURVES = "Score after each epoch of the best trials and of the defaults."
_LABEL_BOX = {"facecolor": "white", "edgecolor": "none", "pad": 1}
MARKERS = {"ended": "o", "stopped": "v", "failed": "x"}


@dataclass(frozen=True)
class Trial:
    """One trial of a search.

    Args:
        name: number of the trial in Ray Tune's files.
        settings: sampled values by dotted path.
        status: ``ended``, ``stopped`` early for a low score, or ``failed``.
        score: best mean CCC of all epochs, averaged over folds; minus infinity without a score.
        valence: CCC of valence in that epoch.
        arousal: CCC of arousal in that epoch.
        lowest: lowest score of a fold.
        highest: highest score of a fold.
        epochs: number of epochs trained.
        seconds: training time.
        curve: mean CCC after each epoch.
        error: error message of a failed trial.
    """

    name: str
    settings: Mapping[str, Any]
    status: Literal["ended", "stopped", "failed"]
    score: float
    valence: float
    arousal: float
    lowest: float
    highest: float
    epochs: int
    seconds: float
    curve: tuple[float, ...]
    error: str = ""


def importance(trials: Sequence[Trial], ranges: Collection[str]) -> dict[str, float]:
    """Share of the differences between good and other trials that each setting explains; empty for too few trials.

    Args:
        trials: trials; those without a score are ignored.
        ranges: paths of the settings sampled from a range.

    Source: Watanabe et al., PED-ANOVA (arXiv 2304.10255), Optuna's implementation.
    """
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    scored = [trial for trial in trials if np.isfinite(trial.score)]
    if len(scored) < MIN_FOR_IMPORTANCE:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kinds: dict[str, BaseDistribution] = {}
    for path in scored[0].settings:
        values = sorted({trial.settings[path] for trial in scored}, key=str)
        if len(values) < 2:
            continue
        if path in ranges:
            kinds[path] = FloatDistribution(min(values), max(values), log=True)
        else:
            kinds[path] = CategoricalDistribution(values)
    study = optuna.create_study(direction="maximize")
    for trial in scored:
        params = {path: trial.settings[path] for path in kinds}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=kinds, value=trial.score))
    if not kinds:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna marks it as experimental
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return {k: float(v) for k, v in optuna.importance.get_param_importances(study, evaluator=evaluator).items()}


def page(
    title: str,
    objective: str,
    trials: Sequence[Trial],
    defaults: Mapping[str, Any],
    ranges: Collection[str],
    rungs: Sequence[int],
    judged: Sequence[str],
) -> str:
    """HTML of the page; it needs no network and no other file.

    Args:
        title: title of the search.
        objective: description of the score.
        trials: trials, best first.
        defaults: values of the run's settings, by dotted path.
        ranges: paths of the settings sampled from a range, which get a logarithmic axis.
        rungs: epochs after which low-scoring trials are stopped.
        judged: sentences about the winner's scores on data that the search did not use.
    """
    with chart_style():
        scored = [trial for trial in trials if np.isfinite(trial.score)]
        figures = [
            ("Parallel coordinates", _parallel(scored, defaults, ranges), _PARALLEL),
            ("Score by setting", _scatter(scored, defaults, ranges), _SCATTER),
            ("Importance", _importance(trials, ranges), _IMPORTANCE),
            ("Rungs", _rungs(scored, rungs), _RUNGS),
            ("Best curves", _curves(scored, defaults), _CURVES),
        ]
    paths = list(defaults)
    return template("sweep.html").render(
        title=title,
        objective=objective,
        judged=judged,
        figures=figures,
        paths=paths,
        trials=trials,
        format_value=format_value,
        short=short,
        is_default=lambda trial: _is(trial, defaults),
    )


def _is(trial: Trial, settings: Mapping[str, Any]) -> bool:
    return all(trial.settings.get(path) == value for path, value in settings.items())


def short(path: str) -> str:
    """Last name of a dotted path."""
    return path.rpartition(".")[2]


def format_value(value: Any) -> str:  # noqa: ANN401 -- a setting's
    """Text of a setting's value."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _places(values: Sequence[Any], continuous: bool) -> tuple[list[float], list[float], list[str]]:
    """Positions of values in [0, 1], and ticks with labels: logarithmic for a range, equally spaced for choices."""
    choices = sorted(set(values), key=lambda value: (str(type(value)), value))
    if continuous and len(choices) > 1:
        low, high = np.log(choices[0]), np.log(choices[-1])
        at = [float((np.log(value) - low) / (high - low)) for value in values]
        ticks = np.linspace(0, 1, 3)
        return at, ticks.tolist(), [f"{np.exp(low + tick * (high - low)):.2g}" for tick in ticks]
    where = {value: (i / (len(choices) - 1) if len(choices) > 1 else 0.5) for i, value in enumerate(choices)}
    return [where[value] for value in values], list(where.values()), [format_value(value) for value in choices]


def _colors(trials: Sequence[Trial]) -> Callable[[Trial], tuple[float, ...]]:
    scores = [trial.score for trial in trials]
    scale = Normalize(min(scores), max(scores) + 1e-9)
    return lambda trial: colormaps["viridis_r"](float(0.15 + 0.85 * scale(trial.score)))  # the best is darkest


def _parallel(trials: Sequence[Trial], defaults: Mapping[str, Any], ranges: Collection[str]) -> str:
    paths, color = list(defaults), _colors(trials)
    figure = Figure(figsize=(9, 3.6))
    axes: Axes = figure.subplots()
    columns = []
    for x, path in enumerate(paths):
        at, ticks, names = _places([trial.settings[path] for trial in trials], path in ranges)
        columns.append(at)
        axes.vlines(x, 0, 1, color="#bbb", zorder=0)
        for tick, name in zip(ticks, names, strict=True):
            axes.annotate(
                name, (x, tick), xytext=(-4, 0), textcoords="offset points", ha="right", va="center", bbox=_LABEL_BOX
            )
    scores = np.array([trial.score for trial in trials])
    columns.append(((scores - scores.min()) / (np.ptp(scores) + 1e-9)).tolist())
    axes.vlines(len(paths), 0, 1, color="#bbb", zorder=0)
    for tick in (0, 0.5, 1):
        axes.annotate(
            f"{scores.min() + tick * np.ptp(scores):.3f}",
            (len(paths), tick),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )
    for i, trial in reversed(list(enumerate(trials))):
        width, style = (3.0 if i == 0 else 1.2), ("--" if _is(trial, defaults) else "-")
        axes.plot([column[i] for column in columns], color=color(trial), lw=width, ls=style)
    axes.set_xticks(range(len(paths) + 1), [*map(short, paths), "mean CCC"])
    axes.set_xlim(-0.5, len(paths) + 0.4)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return svg(figure)


def _scatter(trials: Sequence[Trial], defaults: Mapping[str, Any], ranges: Collection[str]) -> str:
    paths, color = list(defaults), _colors(trials)
    columns = min(4, len(paths))
    rows = -(-len(paths) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(paths) :]:
        axes.set_visible(False)
    for axes, path in zip(grid.flat, paths, strict=False):
        at, ticks, names = _places([trial.settings[path] for trial in trials], path in ranges)
        for x, trial in zip(at, trials, strict=True):
            axes.scatter(x, trial.score, marker=MARKERS[trial.status], color=color(trial), s=28)
            if _is(trial, defaults):
                axes.scatter(x, trial.score, marker="o", facecolors="none", edgecolors="#c00", s=110)
        axes.set_xticks(ticks, names)
        axes.set_xlim(-0.15, 1.15)
        axes.set_title(short(path), fontsize=9)
        axes.grid(alpha=0.3)
    for row in grid:
        row[0].set_ylabel("mean CCC")
    return svg(figure)


def _importance(trials: Sequence[Trial], ranges: Collection[str]) -> str:
    shares = importance(trials, ranges)
    if not shares:
        return ""
    names = sorted(shares, key=lambda path: shares[path])
    figure = Figure(figsize=(6, 0.4 + 0.32 * len(names)))
    axes: Axes = figure.subplots()
    bars = axes.barh([short(path) for path in names], [shares[path] for path in names], color="#31688e")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlim(0, 1.1 * max(shares.values()) + 1e-9)
    axes.set_xlabel("importance")
    axes.spines[["top", "right"]].set_visible(False)
    return svg(figure)


def _rungs(trials: Sequence[Trial], rungs: Sequence[int]) -> str:
    figure = Figure(figsize=(8, 3.4))
    axes: Axes = figure.subplots()
    color = _colors(trials)
    for trial in trials:
        epochs = np.arange(1, len(trial.curve) + 1)
        axes.plot(epochs, trial.curve, color=color(trial), lw=1, alpha=0.8)
        axes.scatter(epochs[-1:], trial.curve[-1:], marker=MARKERS[trial.status], color=color(trial), s=24)
    for rung in rungs:
        reached = sum(trial.epochs >= rung for trial in trials)
        axes.axvline(rung, ls="--", color="#888", lw=1)
        axes.annotate(
            f"{reached} of {len(trials)}",
            (rung, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, 3),
            textcoords="offset points",
        )
    _axes_of_epochs(axes)
    return svg(figure)


def _curves(trials: Sequence[Trial], defaults: Mapping[str, Any]) -> str:
    figure = Figure(figsize=(8, 3.4))
    axes: Axes = figure.subplots()
    best = list(trials[:SHOWN])
    for trial in [*best, *(t for t in trials if _is(t, defaults) and t not in best)]:
        is_default = _is(trial, defaults)
        name = f"{trial.name}  {trial.score:.3f}{', defaults' if is_default else ''}"
        axes.plot(np.arange(1, len(trial.curve) + 1), trial.curve, ls="--" if is_default else "-", label=name)
    axes.legend(loc="lower right", frameon=False)
    _axes_of_epochs(axes)
    return svg(figure)


def _axes_of_epochs(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel("mean CCC")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
