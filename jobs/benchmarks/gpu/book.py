"""Rows of a check: a number with its limit, or a text. They are written as JSON after every row."""

import contextlib
import io
import json
import math
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

OPTIONAL = ("av", "pyarrow")
"""Packages without which a check is left out; without any other package it fails."""


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 -- JSON values
    """Writes a file at once, so that a process that is stopped leaves no half of it."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1))
    part.replace(path)


class Book:
    """Rows of a part, in a file that is written after every row.

    A row has the keys ``part``, ``name``, ``value`` (a number or a text), ``unit``, ``limit`` (a text) and ``ok``
    (None for a row without a limit).

    Args:
        part: name of the part.
        path: file of its rows.
        seconds: time from now after which no check is started.
    """

    def __init__(self, part: str, path: Path, seconds: float) -> None:
        """Starts the clock."""
        self.part, self.path = part, path
        self.rows: list[dict[str, Any]] = []
        self._end = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        """Seconds that are left to the part."""
        return self._end - time.monotonic()

    def note(
        self, name: str, value: float | str, unit: str = "", *, most: float | None = None, least: float | None = None
    ) -> None:
        """Adds a row.

        Args:
            name: name of the row.
            value: a number, or a text.
            unit: unit of the number, or words about it.
            most: the row fails above it, or if the value is not finite.
            least: the row fails below it, or if the value is not finite.
        """
        bounds = [(">=", least), ("<=", most)]
        limit = ", ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)
        ok = None
        if limit:
            low, high = (-math.inf if least is None else least), (math.inf if most is None else most)
            ok = not isinstance(value, str) and math.isfinite(value) and low <= value <= high
        self._add(name, value, unit, limit, ok)

    def leave_out(self, name: str, reason: str) -> None:
        """Adds the row of a check that is left out."""
        self._add(name, f"left out: {reason}", "", "", None)

    def _add(self, name: str, value: float | str, unit: str, limit: str, ok: bool | None) -> None:
        row = {"part": self.part, "name": name, "value": value, "unit": unit, "limit": limit, "ok": ok}
        self.rows.append(row)
        write_json(self.path, self.rows)
        print(line(row), flush=True)

    def check(self, name: str, work: Callable[[], object], needs_s: float = 0.0) -> None:
        """Runs a check. An exception becomes a failed row, and the next check goes on.

        Args:
            name: name of the check.
            work: adds the rows.
            needs_s: least time that has to be left; with less the check is left out.
        """
        if self.left_s < needs_s:
            self.leave_out(name, f"{self.left_s:.0f} s are left, it takes {needs_s:.0f}")
            return
        start = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                work()
        except Exception as error:  # the other checks go on
            traceback.print_exc()
            if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in OPTIONAL:
                self.leave_out(name, str(error))
            else:
                place = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{Path(place.filename).name}:{place.lineno}"
                self._add(name, f"{type(error).__name__}: {str(error)[:300]} ({where})", "", "", False)
        print(f"     {name} took {time.monotonic() - start:.1f} s", flush=True)
        if torch.cuda.is_available():
            with contextlib.suppress(RuntimeError):  # after an error of the device
                torch.cuda.empty_cache()

    def lines(self, name: str, work: Callable[[], object]) -> list[str]:
        """Runs a benchmark, adds each line that it prints as a row, and returns the lines."""
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                work()
        finally:
            found = [text for text in printed.getvalue().splitlines() if text.strip()]
            for text in found:
                self.note(name, text)
        return found


def line(row: dict[str, Any]) -> str:
    """Line of a row in a table: verdict, part, name, value, unit, limit."""
    value = f"{row['value']:.4g}" if isinstance(row["value"], float) else str(row["value"])
    verdict = {None: "", True: "ok", False: "FAIL"}[row["ok"]]
    limit = f" ({row['limit']})" if row["limit"] else ""
    return f"{verdict:4} {row['part']:8} {row['name'][:64]:64} {value[:240]} {row['unit'][:120]}".rstrip() + limit
