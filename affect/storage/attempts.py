"""State of running work: how often each clip was attempted, and the finished part of each clip.

STORE/_attempts/<start>-<job>/      one file per clip in work: its number of attempts
STORE/_parts/<key:24>.parquet       rows of the finished part of a clip
"""

import hashlib
import json
import time
import uuid
from contextlib import suppress

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc

from affect.storage import files
from affect.storage.extracted import Extracted, Part
from affect.storage.store import Store

ATTEMPTS, PARTS = "_attempts", "_parts"
MAX_ATTEMPTS = 3
"""Attempts at a clip within one run; then it is stored as failed."""
MAX_RUN_S = 86_400
"""Age in seconds at which the attempts of another run are deleted. A run that still goes on counts from zero again."""


def given_up(attempts: int, limit_s: float) -> str:
    """Reason of work that is not tried again."""
    return f"its process died {attempts} times, or was stopped after {limit_s:g} s"


class Attempts:
    """Counts attempts at each unit of work within one run: a clip that kills its process is not retried forever.

    Args:
        store: store that holds the counts.
        run: start time and identifier of the run; each run counts from zero.
    """

    def __init__(self, store: Store, run: str) -> None:
        """Stores the folder; nothing is read or created."""
        self._folder = files.join(store.uri, ATTEMPTS, run)

    @staticmethod
    def new(store: Store) -> "Attempts":
        """Starts a run with no attempts; deletes the counts of runs that began more than MAX_RUN_S ago."""
        now = int(time.time())
        names = {name.partition("/")[0] for name, _, _ in files.walk(files.join(store.uri, ATTEMPTS))}
        for name in names:
            start = name.partition("-")[0]
            if not start.isdecimal() or now - int(start) > MAX_RUN_S:
                with suppress(OSError):  # another job deletes it at the same time
                    files.delete_folder(files.join(store.uri, ATTEMPTS, name))
        return Attempts(store, f"{now:010d}-{uuid.uuid4().hex[:12]}")

    def begin(self, key: str) -> int:
        """Counts one more attempt at a unit; returns the number of earlier ones."""
        marker = self._marker(key)
        before = int(files.read(marker)) if files.exists(marker) else 0
        files.write(marker, str(before + 1).encode())
        return before

    def end(self, key: str) -> None:
        """Deletes the count of a unit."""
        files.delete(self._marker(key))

    def close(self) -> None:
        """Deletes all counts of the run."""
        files.delete_folder(self._folder)

    def _marker(self, key: str) -> str:
        return files.join(self._folder, hashlib.sha256(key.encode()).hexdigest()[:24])


class Parts:
    """Finished parts of clips in work, so that a job that is stopped loses only seconds of work.

    Args:
        store: store that holds the parts.
    """

    def __init__(self, store: Store) -> None:
        """Lists the parts of earlier runs once, so that units without a part cost no request."""
        self._store = store
        self._present = {f"{PARTS}/{name}" for name, _, _ in files.walk(files.join(store.uri, PARTS))}

    def load(self, key: str, rows: pa.Schema, *, attempted: bool) -> Part | None:
        """Reads the finished part of a unit; None if there is none or it cannot be read.

        Args:
            key: key of the unit's object.
            rows: schema of the unit's table.
            attempted: whether this run has attempted the unit before.
        """
        if not attempted and self._key_of(key) not in self._present:
            return None
        try:
            found = self._store.get(self._key_of(key))
            part = Part(found.table.cast(rows), **json.loads(found.reason))
            self._present.add(self._key_of(key))
            return part
        except (OSError, ValueError, TypeError):
            return None

    def keep(self, key: str, part: Part) -> None:
        """Stores a part over the earlier one. Write errors are ignored here: the unit's own write raises them."""
        note = {"last": part.last, "share": part.share, "counts": part.counts}
        with suppress(OSError):
            self._store.put(self._key_of(key), Extracted(part.table, "ok", json.dumps(note)))
            self._present.add(self._key_of(key))

    def end(self, key: str) -> None:
        """Deletes the part of a unit, if there is one."""
        if self._key_of(key) in self._present:
            with suppress(OSError):
                files.delete(self._store.uri_of(self._key_of(key)))
            self._present.discard(self._key_of(key))

    def _key_of(self, key: str) -> str:
        return f"{PARTS}/{hashlib.sha256(key.encode()).hexdigest()[:24]}.parquet"
