"""Progress of a job: a rich bar on a terminal, a line every ten seconds in a log."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0
MAX_SAID = 300
"""Characters that are kept of an error."""


def say(message: str) -> None:
    """Print one line at once: job logs are read while the job runs."""
    print(message, flush=True)


def one_line(error: object) -> str:
    """An error's end, without line breaks, as far as a person reads."""
    return " ".join(str(error).split())[-MAX_SAID:]


class Meter:
    """Counts work done against work known beforehand.

    Args:
        name: what is being done.
        total: amount of work.
        unit: what the amount counts, e.g. ``s of video``.
        start: work that was done before, which says nothing of the rate.
    """

    def __init__(self, name: str, total: float, unit: str, start: float = 0.0) -> None:
        """Start the clock."""
        self._name, self._total, self._unit = name, total, unit
        self._before = self._done = start
        self._note = ""
        self._start = self._last = time.monotonic()
        self._bar: Progress | None = None
        if sys.stdout.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
            self._bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console())

    def __enter__(self) -> "Meter":
        """Show the bar."""
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=self._total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar down, or say the last line."""
        if self._bar:
            self._bar.stop()
        elif kind is None:
            say(self._line())

    def advance(self, amount: float, note: str = "") -> None:
        """Count work; the note replaces the last one."""
        self._done += amount
        self._note = note
        if self._bar:
            self._bar.update(self._task, completed=round(self._done), description=f"{self._name} {note}")
        elif time.monotonic() - self._last >= LINE_EVERY_S and self._done < self._total:  # the end is said at the end
            self._last = time.monotonic()
            say(self._line())

    def _line(self) -> str:
        elapsed = time.monotonic() - self._start
        rate = (self._done - self._before) / max(elapsed, 1e-9)
        left = (self._total - self._done) / max(rate, 1e-9)
        eta = f", {left:.0f} s left" if self._done < self._total and self._done else ""
        note = f", {self._note}" if self._note else ""
        done = f"{self._done:.0f} of {self._total:.0f} {self._unit}"
        return f"{self._name}: {done} in {elapsed:.0f} s, {rate:.1f} a second{eta}{note}"
