"""How every object of a store ended, by listing: what was read of an object once is noted beside its version.

    STORE/_state.parquet      a note per probe and clip; only a shortcut, nothing that is computed depends on it

So a finished job of 10,000 videos is recognised by a listing and one read, on a disk and in a bucket.
"""

from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from affect.storage import files, sealed
from affect.storage.store import Outcome, Store, told

NUM_THREADS = 32
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("version", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("rows", pa.int64()),
        ("fingerprint", pa.string()),
        ("content", pa.string()),
        ("num_frames", pa.int64()),
        ("last_s", pa.float64()),
        ("duration_s", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Head:
    """What a probe says in short.

    Args:
        fingerprint: of the video and its path.
        content: of the video alone.
        num_frames: its frames.
        last_s: time of its last frame from its first one.
        duration_s: length.
    """

    fingerprint: str
    content: str
    num_frames: int
    last_s: float
    duration_s: float


@dataclass(frozen=True)
class State:
    """How an object ended, and if it is the probe of a usable video, what it says in short."""

    outcome: Outcome
    head: Head | None

    @staticmethod
    def of(store: Store, key: str) -> "State":
        """State of an object that is there; a damaged one failed, and the reason says so: others are not harmed."""
        try:
            outcome, footer = store.footer(key)
            if not (key.startswith("videos/") and outcome.rows):
                return State(outcome, None)
            with told(store.uri_of(key)):
                group = footer.row_group(0)
                parts = {(part := group.column(i)).path_in_schema.split(".")[0]: part for i in range(group.num_columns)}
                names = ("fingerprint", "content", "time_s", "duration_s")
                largest: Any = {name: parts[name].statistics.max for name in names}
        except ValueError as error:
            return State(Outcome("failed", str(error), 0), None)
        num_frames = parts["time_s"].num_values
        times = largest["time_s"], largest["duration_s"]
        return State(outcome, Head(largest["fingerprint"], largest["content"], num_frames, *times))


class States:
    """How objects of a store ended.

    Args:
        store: the store.
    """

    def __init__(self, store: Store) -> None:
        """Read what is noted."""
        self._store, self._uri = store, files.join(store.uri, "_state.parquet")
        self._noted: dict[str, tuple[str, State]] = {}
        self._changed = False
        with suppress(OSError, pa.ArrowException, *sealed.NOT_AS_WRITTEN):  # a note that cannot be read is made anew
            table, _ = sealed.from_parquet(pa.py_buffer(files.read(self._uri)))
            columns = table.select(_SCHEMA.names).to_pydict().values()
            for key, version, status, reason, rows, *head in zip(*columns, strict=True):
                state = State(Outcome(status, reason, rows), Head(*head) if head[0] is not None else None)
                self._noted[key] = version, state

    def of(self, kind: str, wanted: Collection[str]) -> dict[str, State]:
        """States of those wanted keys that are present.

        Args:
            kind: the first part of the keys.
            wanted: keys.
        """
        listed = {f"{kind}/{name}": version for name, _, version in files.walk(files.join(self._store.uri, kind))}
        for key in [key for key in self._noted if key.startswith(f"{kind}/") and key not in listed]:
            del self._noted[key]
        present = [key for key in wanted if key in listed]
        new = [key for key in present if self._noted.get(key, ("", None))[0] != listed[key]]
        if new:
            self._changed = True
            for key, state in zip(new, self._read(new), strict=True):
                self._noted[key] = listed[key], state
        return {key: self._noted[key][1] for key in present}

    def _read(self, keys: Collection[str]) -> Iterable[State]:
        if "://" not in self._store.uri:  # a disk answers at once
            return [State.of(self._store, key) for key in keys]
        with ThreadPoolExecutor(NUM_THREADS) as threads:
            return list(threads.map(partial(State.of, self._store), keys))

    def keep(self) -> None:
        """Note what was read for the next time; a store that may not be written to is read anew."""
        if not self._changed:
            return
        rows = [
            (key, version, *astuple(state.outcome), *(astuple(state.head) if state.head else (None,) * 5))
            for key, (version, state) in sorted(self._noted.items())
        ]
        columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), _SCHEMA, strict=True)]
        with suppress(OSError):
            files.write(self._uri, sealed.to_parquet(pa.table(columns, schema=_SCHEMA), {}))
