"""Outcome of a search: its trials, its best settings, its page, and the winner against the defaults."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from affect import concordance
from affect.concordance import Score
from affect.corpus.affwild2 import Split
from affect.evaluation.evaluate import Evaluation
from affect.report.sweep import Trial, page
from affect.settings.paths import flat, setting, with_settings
from affect.settings.run import Run
from affect.settings.spaces import Range
from affect.storage import files
from affect.storage.store import encode_csv
from affect.trained.search import Search

SPLITS: dict[Split, str] = {
    "held_out": "held-out people",
    "development": "development, which epochs were selected on",
    "train": "people who were TRAINED ON, no measure of anything",
}
"""Names of the splits in verdicts."""


def best_run(job: Search, trials: Sequence[Trial]) -> Run:
    """The run with the best trial's settings and the name of the search.

    Args:
        job: the search.
        trials: its trials, best first.
    """
    run = with_settings(job.training.run, trials[0].settings)
    return dataclasses.replace(run, name=f"{run.name}-{job.folder.rsplit('/', 1)[-1]}")


def verdict(trials: Sequence[Trial], judged: Mapping[str, Evaluation]) -> list[str]:
    """Lines that compare the winner with the defaults and its new scores with its score in the search.

    Args:
        trials: best first.
        judged: scores of the winner and, after it, of the defaults, by name of the split.
    """
    best = trials[0]
    folds = f", {best.lowest:.3f} to {best.highest:.3f} over folds" if best.lowest < best.highest else ""
    lines = [f"in the search: mean CCC {best.score:.3f}{folds}, the highest of {len(trials)} trials"]
    for split, evaluation in judged.items():
        winner, *others = (evaluation.truth.moments(answers.tracks) for answers in evaluation.answers)
        scores = [concordance.score(winner), *map(concordance.score, others)]
        shrink = f", {scores[0].ccc[2] - best.score:+.3f} against the search"
        lines.append(f"{split}: winner {_interval(scores[0])}{shrink}")
        if others:
            gain = _interval(concordance.difference(winner, others[0]), "{:+.3f}")
            lines += [f"{split}: defaults {_interval(scores[1])}", f"{split}: winner minus defaults {gain}, paired"]
        else:
            lines.append(f"{split}: the winner has the defaults' settings")
    return lines


def _interval(score: Score, form: str = "{:.3f}") -> str:
    """Mean CCC with its 95 % interval over videos."""
    return f"{score.text(2, form=form)} over {score.num_units} videos"


def write_outcome(job: Search, trials: Sequence[Trial], lines: Sequence[str]) -> None:
    """Writes ``trials.csv``, ``best.json`` and ``index.html``.

    Args:
        job: the search.
        trials: best first.
        lines: from :func:`verdict`; none before the winner is judged.
    """
    rows = [
        {"trial": t.name, "status": t.status, "mean": t.score, "valence": t.valence, "arousal": t.arousal}
        | {"epochs": t.epochs, "seconds": t.seconds, **{p: str(v) for p, v in t.settings.items()}, "error": t.error}
        for t in trials
    ]
    run, winner = job.training.run, best_run(job, trials)
    best: dict[str, Any] = {"recipe": run.name, "name": winner.name, "systems": run.systems}
    best["settings"] = {
        path: value
        for system in run.systems
        for path, value in flat(winner.settings_of(system), winner.fields_of_systems()[system]).items()
    }
    files.write(files.join(job.folder, "trials.csv"), encode_csv(pa.Table.from_pylist(rows)))
    files.write(files.join(job.folder, "best.json"), json.dumps(best, indent=1).encode())
    defaults = {path: setting(run, path) for path in job.space}
    title = f"{job.training.system} of recipe {run.name}: {len(trials)} trials"
    ranges = {path for path, values in job.space.items() if isinstance(values, Range)}
    html = page(title, job.objective, trials, defaults, ranges, job.rungs, lines)
    files.write(files.join(job.folder, "index.html"), html.encode())
