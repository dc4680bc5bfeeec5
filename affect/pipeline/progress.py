"""Progress of a job: rich bars on a terminal, a line every ten seconds in a log."""

import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S, LOOK_EVERY_S = 10.0, 1.0
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
        parts: amount of work of each stage, where the work passes several.
        look: says how much each stage has done; asked every second.
    """

    def __init__(
        self,
        name: str,
        total: float,
        unit: str,
        start: float = 0.0,
        parts: Mapping[str, float] | None = None,
        look: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        """Start the clock."""
        self._name, self._total, self._unit = name, total, unit
        self._before = self._done = start
        self._parts, self._look = dict(parts or {}), look
        self._of_part = dict.fromkeys(self._parts, 0.0)
        self._note = ""
        self._start = self._last = time.monotonic()
        self._bar: Progress | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()
        if sys.stdout.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
            self._bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console())

    def __enter__(self) -> "Meter":
        """Show the bars."""
        self._tasks: dict[str, TaskID] = {}
        if self._bar:
            self._bar.start()
            for part, amount in self._parts.items():
                self._tasks[part] = self._bar.add_task(f"  {part}", total=round(amount))
            self._task = self._bar.add_task(self._name, total=round(self._total))
        self._watch = threading.Thread(target=self._ask, daemon=True)
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bars down, or say the last line."""
        self._over.set()
        if kind is None:
            self._watch.join()
        if self._bar:
            self._bar.stop()
        elif kind is None:
            say(self._line())

    def advance(self, amount: float, note: str = "") -> None:
        """Count work; the note replaces the last one."""
        with self._lock:
            self._done += amount
            self._note = note
            self._show()

    def _ask(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            found = self._look() if self._look else {}
            with self._lock:
                self._of_part |= found
                self._show()

    def _show(self) -> None:
        if self._bar:
            for part, task in self._tasks.items():
                self._bar.update(task, completed=round(self._of_part[part]))
            self._bar.update(self._task, completed=round(self._done), description=f"{self._name} {self._note}")
        elif time.monotonic() - self._last >= LINE_EVERY_S and self._done < self._total:  # the end is said at the end
            self._last = time.monotonic()
            say(self._line())

    def _line(self) -> str:
        elapsed = time.monotonic() - self._start
        rate = (self._done - self._before) / max(elapsed, 1e-9)
        left = (self._total - self._done) / max(rate, 1e-9)
        eta = f", {left:.0f} s left" if self._done < self._total and self._done > self._before else ""
        note = f", {self._note}" if self._note else ""
        parts = ""
        if self._parts and self._done < self._total:
            parts = f" ({', '.join(f'{p} {self._of_part[p]:.0f}/{amount:.0f}' for p, amount in self._parts.items())})"
        done = f"{self._done:.0f} of {self._total:.0f} {self._unit}"
        return f"{self._name}: {done}{parts} in {elapsed:.0f} s, {rate:.1f} a second{eta}{note}"
