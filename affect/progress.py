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
)

from affect.timeline import duration

LINE_EVERY_S, LOOK_EVERY_S = 10.0, 1.0
MIN_SPEED = 0.05
"""Speeds below it, which would be said as 0.0, are not said."""
MAX_SAID = 300
"""Characters that are kept of an error."""


def say(message: str) -> None:
    """Print one line at once: job logs are read while the job runs."""
    print(message, flush=True)


def one_line(error: object) -> str:
    """An error's end, without line breaks, as far as a person reads."""
    return " ".join(str(error).split())[-MAX_SAID:]


class Rate:
    """How fast one stage works, from the first look that finds anything done: what came before is no work of its own.

    Args:
        total: its amount of work.
    """

    def __init__(self, total: float) -> None:
        """Nothing is known yet."""
        self.total, self.done = total, 0.0
        self._first: tuple[float, float] | None = None

    def see(self, done: float) -> None:
        """Note what is done by now."""
        self.done = min(done, self.total)
        if self._first is None and done > 0:
            self._first = time.monotonic(), self.done

    @property
    def left_s(self) -> float | None:
        """Seconds that are left; None while nothing is known."""
        if self.done >= self.total:
            return 0.0
        if self._first is None or self.done <= self._first[1]:
            return None
        elapsed = time.monotonic() - self._first[0]
        return elapsed * (self.total - self.done) / (self.done - self._first[1])


class Meter:
    """Counts work done against work known beforehand.

    Args:
        name: what is being done.
        total: amount of work.
        unit: what the amount counts, e.g. ``s of video``.
        start: work that was done before, which says nothing of the rate.
        parts: amount of work of each stage, where the work passes several: then they are what is shown, and the
            slowest says how much time is left.
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
        self._look = look
        self._rates = {part: Rate(amount) for part, amount in (parts or {}).items()}
        self._note = ""
        self._start = self._last = time.monotonic()
        self._bar: Progress | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()
        if sys.stdout.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
            self._bar = Progress(*columns, TimeElapsedColumn(), TextColumn("{task.fields[left]}"), console=Console())

    def __enter__(self) -> "Meter":
        """Show the bars."""
        self._tasks: dict[str, TaskID] = {}
        if self._bar:
            self._bar.start()
            shown = {part: rate.total for part, rate in self._rates.items()} or {"": self._total}
            for part, amount in shown.items():
                title = f"{self._name} {part}".rstrip()
                self._tasks[part] = self._bar.add_task(title, total=round(amount), left="")
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
                for part, done in found.items():
                    self._rates[part].see(done)
                self._show()

    def _show(self) -> None:
        if self._bar:
            left = self._left()
            for part, task in self._tasks.items():
                done = self._rates[part].done if part else self._done
                last = part == list(self._tasks)[-1]  # the estimate is of the whole
                note = f"{left} {self._note}".strip() if last else ""
                self._bar.update(task, completed=round(done), left=note)
        elif time.monotonic() - self._last >= LINE_EVERY_S and self._done < self._total:  # the end is said at the end
            self._last = time.monotonic()
            say(self._line())

    def _left(self) -> str:
        """The time that is left, in words; nothing while it is not known."""
        if self._done >= self._total:
            return ""
        if self._rates:
            known = [rate.left_s for rate in self._rates.values()]
            if None in known:
                return ""
            left = max(seconds for seconds in known if seconds is not None)
        elif self._done > self._before:
            elapsed = time.monotonic() - self._start
            left = elapsed * (self._total - self._done) / (self._done - self._before)
        else:
            return ""
        return f"about {duration(left)} left"

    def _line(self) -> str:
        elapsed = time.monotonic() - self._start
        note = f", {self._note}" if self._note else ""
        if self._rates and self._done < self._total:
            parts = ", ".join(f"{part} {rate.done:.0f} of {rate.total:.0f}" for part, rate in self._rates.items())
            starting = not any(rate.done for rate in self._rates.values())
            done, rate = f"{parts} {self._unit}", ", actors are starting" if starting else ""
        else:
            done = f"{self._done:.0f} of {self._total:.0f} {self._unit}"
            speed = (self._done - self._before) / max(elapsed, 1e-9)
            rate = f", {speed:.1f} a second" if speed >= MIN_SPEED else ""
        left = f", {words}" if (words := self._left()) else ""
        return f"{self._name}: {done} in {duration(elapsed)}{rate}{left}{note}"
