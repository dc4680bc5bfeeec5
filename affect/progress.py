"""Progress of a job: bars on a terminal, a line every ten seconds in a log."""

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

LINE_EVERY_S, POLL_EVERY_S = 10.0, 1.0
MIN_SPEED = 0.05
"""Slower speeds, which would print as 0.0, are not shown."""
MAX_ERROR_CHARS = 300
"""Longest text of an error on one line."""


def say(message: str) -> None:
    """Prints one line and flushes it: job logs are read while the job runs."""
    print(message, flush=True)


def one_line(error: object) -> str:
    """Last MAX_ERROR_CHARS characters of an error's text, without line breaks."""
    return " ".join(str(error).split())[-MAX_ERROR_CHARS:]


def format_duration(seconds: float) -> str:
    """Duration in words, e.g. ``12.3 s``, ``4 min 05 s`` or ``2 h 07 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


class Rate:
    """Speed of one stage, measured from the first update that has finished work, so that its start-up does not count.

    Args:
        total: the stage's amount of work.
    """

    def __init__(self, total: float) -> None:
        """Starts without a measurement."""
        self.total, self.done = total, 0.0
        self._first: tuple[float, float] | None = None

    def update(self, done: float) -> None:
        """Sets the amount of finished work."""
        self.done = min(done, self.total)
        if self._first is None and done > 0:
            self._first = time.monotonic(), self.done

    @property
    def left_s(self) -> float | None:
        """Estimated seconds left; None before the speed is known."""
        if self.done >= self.total:
            return 0.0
        if self._first is None or self.done <= self._first[1]:
            return None
        elapsed = time.monotonic() - self._first[0]
        return elapsed * (self.total - self.done) / (self.done - self._first[1])


class Meter:
    """Shows finished work, total work, speed and the estimated time left.

    Args:
        name: name of the work, e.g. ``extract``.
        total: amount of work.
        unit: unit of the amount, e.g. ``s of video``.
        start: work finished by earlier jobs, which does not count for the speed.
        parts: amount of work of each stage, if there are several. Then the stages are shown, and the slowest one
            decides the time left.
        poll: returns the finished work of each stage; called every POLL_EVERY_S seconds.
    """

    def __init__(
        self,
        name: str,
        total: float,
        unit: str,
        start: float = 0.0,
        parts: Mapping[str, float] | None = None,
        poll: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        """Starts the measurement of time."""
        self._name, self._total, self._unit = name, total, unit
        self._start_amount = self._done = start
        self._poll = poll
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
        """Shows the bars."""
        self._tasks: dict[str, TaskID] = {}
        if self._bar:
            self._bar.start()
            shown = {part: rate.total for part, rate in self._rates.items()} or {"": self._total}
            for part, amount in shown.items():
                title = f"{self._name} {part}".rstrip()
                self._tasks[part] = self._bar.add_task(title, total=round(amount), left="")
        self._watch = threading.Thread(target=self._watch_stages, daemon=True)
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes the bars, or prints the last line."""
        self._over.set()
        if kind is None:
            self._watch.join()
        if self._bar:
            self._bar.stop()
        elif kind is None:
            say(self._line())

    def advance(self, amount: float, note: str = "") -> None:
        """Adds finished work; the note replaces the last note."""
        with self._lock:
            self._done += amount
            self._note = note
            self._show()

    def _watch_stages(self) -> None:
        while not self._over.wait(POLL_EVERY_S):
            polled = self._poll() if self._poll else {}
            with self._lock:
                for part, done in polled.items():
                    self._rates[part].update(done)
                self._show()

    def _show(self) -> None:
        if self._bar:
            left = self._left()
            for part, task in self._tasks.items():
                done = self._rates[part].done if part else self._done
                last = part == list(self._tasks)[-1]  # the estimate is of all stages together
                note = f"{left} {self._note}".strip() if last else ""
                self._bar.update(task, completed=round(done), left=note)
        elif time.monotonic() - self._last >= LINE_EVERY_S and self._done < self._total:  # __exit__ prints the end
            self._last = time.monotonic()
            say(self._line())

    def _left(self) -> str:
        """Estimated time left in words; empty before it is known."""
        if self._done >= self._total:
            return ""
        if self._rates:
            known = [rate.left_s for rate in self._rates.values()]
            if None in known:
                return ""
            left = max(seconds for seconds in known if seconds is not None)
        elif self._done > self._start_amount:
            elapsed = time.monotonic() - self._start
            left = elapsed * (self._total - self._done) / (self._done - self._start_amount)
        else:
            return ""
        return f"about {format_duration(left)} left"

    def _line(self) -> str:
        elapsed = time.monotonic() - self._start
        note = f", {self._note}" if self._note else ""
        if self._rates and self._done < self._total:
            parts = ", ".join(f"{part} {rate.done:.0f} of {rate.total:.0f}" for part, rate in self._rates.items())
            starting = not any(rate.done for rate in self._rates.values())
            done, rate = f"{parts} {self._unit}", ", actors are starting" if starting else ""
        else:
            done = f"{self._done:.0f} of {self._total:.0f} {self._unit}"
            speed = (self._done - self._start_amount) / max(elapsed, 1e-9)
            rate = f", {speed:.1f} a second" if speed >= MIN_SPEED else ""
        left = f", {words}" if (words := self._left()) else ""
        return f"{self._name}: {done} in {format_duration(elapsed)}{rate}{left}{note}"
