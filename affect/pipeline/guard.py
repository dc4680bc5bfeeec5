"""Guarantees of extraction for actors that run trained models: work that kills its process or hangs is given up."""

import faulthandler
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from affect.pipeline.metrics import Metrics
from affect.plan.clips import default_limit_s
from affect.storage import files
from affect.storage.attempts import MAX_ATTEMPTS, Attempts, given_up

NO_LENGTH_LIMIT_S = 6 * 3600.0
"""Time limit in seconds of work whose length is not known."""


class Guarded:
    """An actor that passes each row to another actor, once per attempt.

    A row whose process dies is tried again on another process, by Ray Data. After three attempts, or a failure of the
    work itself, the other actor's ``failed(batch, reason)`` makes the row; without such a method the error ends the
    job, because its result would be incomplete.

    Args:
        actor: class of the other actor.
        arguments: arguments of its constructor.
        stage: name of the stage in metrics.
        attempts: counter of attempts.
    """

    def __init__(self, actor: type, arguments: Sequence[Any], stage: str, attempts: Attempts) -> None:
        """Makes the other actor."""
        self._actor, self._attempts, self._metrics = actor(*arguments), attempts, Metrics(stage)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Passes on one row.

        Args:
            batch: a batch of one, with ``unit``, the name of the work, and ``length_s``, its seconds of video; 0 if
                they are not known.

        Raises:
            ValueError: the work was given up.
            Exception: it failed, and the actor makes no rows of failures, or nothing can be written.
        """
        unit, length_s, start = str(batch["unit"][0]), float(batch["length_s"][0]), time.monotonic()
        limit_s = default_limit_s(length_s) if length_s else NO_LENGTH_LIMIT_S
        before = 0
        with suppress(OSError):  # a store that can only be read counts nothing
            before = self._attempts.begin(unit)
        if before:
            self._metrics.retry()
        faulthandler.dump_traceback_later(limit_s, exit=True)
        try:
            if before >= MAX_ATTEMPTS:
                raise ValueError(f"{unit}: {given_up(before, limit_s)}")
            row: dict[str, Any] = self._actor(batch)
        except Exception as error:
            if files.is_unwritable(error) or not hasattr(self._actor, "failed"):
                raise
            traceback.print_exc()
            row = self._actor.failed(
                batch, str(error) if before >= MAX_ATTEMPTS else f"{type(error).__name__}: {error}"
            )
        finally:
            faulthandler.cancel_dump_traceback_later()
            with suppress(OSError):
                self._attempts.end(unit)
        self._metrics.progress(length_s)
        self._metrics.finished(row.get("status", ["ok"])[0], time.monotonic() - start)
        return row
