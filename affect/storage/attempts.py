"""Work under way: attempts at clips, and parts of clips that are done.

STORE/_attempts/<start>-<job>/      clips under way
STORE/_parts/<key:24>.parquet       as far as they are done
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


MAX_RUN_S = 86_400
"""Seconds after which markers of another run are left behind: it ended, or counts anew, which harms nothing."""


class Attempts:
    """Counts a unit's attempts within one run, so that a clip that kills its process cannot do it for ever.

    Args:
        store: where the markers lie.
        run: names the run and when it began; a new run starts at zero.
    """

    def __init__(self, store: Store, run: str) -> None:
        """Remember the place."""
        self._folder = files.join(store.uri, ATTEMPTS, run)

    @staticmethod
    def new(store: Store) -> "Attempts":
        """Those of a run that begins now; what runs that were killed more than a day ago left behind is deleted."""
        now = int(time.time())
        names = {name.partition("/")[0] for name, _, _ in files.walk(files.join(store.uri, ATTEMPTS))}
        for name in names:
            start = name.partition("-")[0]
            if not start.isdecimal() or now - int(start) > MAX_RUN_S:
                with suppress(OSError):  # another job sweeps too
                    files.delete_folder(files.join(store.uri, ATTEMPTS, name))
        return Attempts(store, f"{now:010d}-{uuid.uuid4().hex[:12]}")

    def begin(self, key: str) -> int:
        """Count one more attempt; returns how many there were before."""
        marker = self._marker(key)
        before = int(files.read(marker)) if files.exists(marker) else 0
        files.write(marker, str(before + 1).encode())
        return before

    def end(self, key: str) -> None:
        """Forget the unit's attempts."""
        files.delete(self._marker(key))

    def close(self) -> None:
        """Forget the run."""
        files.delete_folder(self._folder)

    def _marker(self, key: str) -> str:
        return files.join(self._folder, hashlib.sha256(key.encode()).hexdigest()[:24])


class Parts:
    """Parts of clips under way: a job that is stopped loses the work of seconds.

    Args:
        store: where they lie.
    """

    def __init__(self, store: Store) -> None:
        """List what earlier runs left, so that other units cost no call."""
        self._store = store
        self._there = {f"{PARTS}/{name}" for name, _, _ in files.walk(files.join(store.uri, PARTS))}

    def load(self, key: str, rows: pa.Schema, *, attempted: bool) -> Part | None:
        """As far as a unit is done; None if nothing was kept, or nothing that can be read.

        Args:
            key: of the unit.
            rows: its schema.
            attempted: whether this run has begun the unit before.
        """
        if not attempted and self._of(key) not in self._there:
            return None
        try:
            found = self._store.get(self._of(key))
            part = Part(found.table.cast(rows), **json.loads(found.reason))
            self._there.add(self._of(key))
            return part
        except (OSError, ValueError, TypeError):
            return None

    def keep(self, key: str, part: Part) -> None:
        """Keep a part in the place of an earlier one; a store that takes none says so when the unit is written."""
        note = {"last": part.last, "share": part.share, "counts": part.counts}
        with suppress(OSError):
            self._store.put(self._of(key), Extracted(part.table, "ok", json.dumps(note)))
            self._there.add(self._of(key))

    def end(self, key: str) -> None:
        """Forget a unit's part, if there is one."""
        if self._of(key) in self._there:
            with suppress(OSError):
                files.delete(self._store.uri_of(self._of(key)))
            self._there.discard(self._of(key))

    def _of(self, key: str) -> str:
        return f"{PARTS}/{hashlib.sha256(key.encode()).hexdigest()[:24]}.parquet"
