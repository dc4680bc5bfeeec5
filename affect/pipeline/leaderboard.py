"""What a search shows while it runs: the best trials so far, and the time that is left.

Ray Tune's own reporter prints all trials with their hosts and processes, and knows no time that is left.
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
"""Trials on the board."""


class Leaderboard(Callback):
    """Prints the best trials: a table on a terminal, a few lines in a log, every ten seconds.

    Args:
        num_trials: trials in all.
        paths: settings that are searched.
    """

    def __init__(self, num_trials: int, paths: tuple[str, ...]) -> None:
        """Nothing has happened yet."""
        self._num_trials, self._paths = num_trials, paths
        self._rows: dict[str, dict[str, Any]] = {}
        self._over: set[str] = set()
        self._failed: set[str] = set()
        self._before = 0  # trials that were over when this process began

    def setup(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
        """Start the clock, in a search that goes on, too."""
        self._before = len(self._over)
        self._start = self._last = time.monotonic()

    def get_state(self) -> dict[str, Any]:
        """What a search that goes on has to know."""
        return {"rows": self._rows, "over": sorted(self._over), "failed": sorted(self._failed)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on with it."""
        self._rows, self._over, self._failed = state["rows"], set(state["over"]), set(state["failed"])

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:  # noqa: ANN401
        """Note an epoch, or why there is none."""
        if error := result.get("error"):
            self._failed.add(_number(trial))
            say(f"tune: trial {_number(trial)} failed: {error}")
            return
        self._rows[_number(trial)] = {**result, "settings": trial.config}
        if time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            self._show()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ANN401
        """Note a trial's end."""
        self._over.add(_number(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ANN401
        """Note a trial that will not be started again."""
        self._failed.add(_number(trial))
        self._over.add(_number(trial))
        reason = one_line(trial.get_error())
        say(f"tune: trial {_number(trial)} failed, and was started again as often as it may: {reason}")

    def on_experiment_end(self, trials: list[Any], **_: Any) -> None:  # noqa: ANN401
        """Show the last board."""
        self._show()

    def _show(self) -> None:
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


def _number(trial: Any) -> str:  # noqa: ANN401 -- Ray Tune's own class
    return trial.experiment_tag.partition("_")[0].zfill(3)
