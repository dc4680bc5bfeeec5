"""Progress of a search: the best trials so far, and the time left.

Ray Tune's own reporter prints all trials with hosts and processes, and no time left.
"""

import sys
import time
from typing import Any

from ray.tune import Callback
from rich.console import Console
from rich.table import Table

from affect.progress import LINE_EVERY_S, one_line, say
from affect.report.sweep import format_value, short

SHOWN = 5
"""Number of trials that are shown."""


class Leaderboard(Callback):
    """Prints the best trials every ten seconds: a table on a terminal, a few lines in a log.

    Args:
        num_trials: number of trials of the search.
        paths: paths of the searched settings.
    """

    def __init__(self, num_trials: int, paths: tuple[str, ...]) -> None:
        """Starts with no results."""
        self._num_trials, self._paths = num_trials, paths
        self._rows: dict[str, dict[str, Any]] = {}
        self._over: set[str] = set()
        self._failed: set[str] = set()
        self._before = 0  # trials that had ended when this process started

    def setup(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
        """Starts the clock, also in a resumed search."""
        self._before = len(self._over)
        self._start = self._last = time.monotonic()

    def get_state(self) -> dict[str, Any]:
        """State for a resumed search."""
        return {"rows": self._rows, "over": sorted(self._over), "failed": sorted(self._failed)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state."""
        self._rows, self._over, self._failed = state["rows"], set(state["over"]), set(state["failed"])

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:  # noqa: ANN401
        """Records an epoch, or the error of a failed trial."""
        if error := result.get("error"):
            self._failed.add(trial_number(trial))
            say(f"tune: trial {trial_number(trial)} failed: {error}")
            return
        self._rows[trial_number(trial)] = {**result, "settings": trial.config}
        if time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            self._show()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ANN401
        """Records the end of a trial."""
        self._over.add(trial_number(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ANN401
        """Records a trial whose process died too often."""
        self._failed.add(trial_number(trial))
        self._over.add(trial_number(trial))
        reason = one_line(trial.get_error())
        say(f"tune: trial {trial_number(trial)} failed, its restarts are used up: {reason}")

    def on_experiment_end(self, trials: list[Any], **_: Any) -> None:  # noqa: ANN401
        """Prints the final best trials."""
        self._show()

    def _show(self) -> None:
        """Prints counts, time left and the best trials."""
        elapsed, over = time.monotonic() - self._start, len(self._over)
        new, to_do = over - self._before, self._num_trials - over
        left = f", about {elapsed / new * to_do:.0f} s left" if new and to_do else ""
        failed = f", {len(self._failed)} failed" if self._failed else ""
        say(f"tune: {over} of {self._num_trials} trials over, {elapsed:.0f} s{left}{failed}")
        best = sorted(self._rows.items(), key=lambda item: -item[1]["mean"])[:SHOWN]
        if sys.stdout.isatty():
            table = Table(*("trial", "mean", "valence", "arousal", "epochs"), *map(short, self._paths))
            for name, row in best:
                values = (format_value(row["settings"].get(path)) for path in self._paths)
                scores = (f"{row[key]:.3f}" for key in ("mean", "valence", "arousal"))
                table.add_row(name, *scores, str(row["epochs"]), *values)
            Console().print(table)
            return
        for name, row in best:
            settings = ", ".join(f"{short(path)} {format_value(row['settings'].get(path))}" for path in self._paths)
            say(
                f"  {name}  CCC {row['mean']:.3f} mean, {row['valence']:.3f} valence, {row['arousal']:.3f} arousal, "
                f"epoch {row['epochs']}: {settings}"
            )


def trial_number(trial: Any) -> str:  # noqa: ANN401 -- Ray Tune's own class
    """Number of a trial, three digits, from 001."""
    return trial.experiment_tag.partition("_")[0].zfill(3)
