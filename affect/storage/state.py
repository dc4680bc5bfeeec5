"""Cache of object statuses, keyed by ETag or modification time.

    STORE/_state.parquet      one row per probe and clip; a cache only, no result depends on it

With it, a finished job of 10,000 videos is recognised by one listing and one read, on a disk and in a bucket.
"""

from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from affect.storage import files, sealed
from affect.storage.store import Outcome, Store, naming_object

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
class ProbeSummary:
    """Fields of a video's probe that planning needs.

    Args:
        fingerprint: hash of the video's path, size and content.
        content: hash of the video's size and content.
        num_frames: frames of the video.
        last_s: seconds from the first frame to the last one.
        duration_s: length of the video in seconds.
    """

    fingerprint: str
    content: str
    num_frames: int
    last_s: float
    duration_s: float


@dataclass(frozen=True)
class State:
    """Outcome of an object, and the summary if the object is the probe of a usable video."""

    outcome: Outcome
    head: ProbeSummary | None

    @staticmethod
    def of(store: Store, key: str) -> "State":
        """Reads the state of a present object. A damaged object counts as failed, with the damage as its reason."""
        try:
            outcome, footer = store.footer(key)
            if not (key.startswith("videos/") and outcome.rows):
                return State(outcome, None)
            with naming_object(store.uri_of(key)):
                group = footer.row_group(0)
                parts = {(part := group.column(i)).path_in_schema.split(".")[0]: part for i in range(group.num_columns)}
                names = ("fingerprint", "content", "time_s", "duration_s")
                largest: Any = {name: parts[name].statistics.max for name in names}
        except ValueError as error:
            return State(Outcome("failed", str(error), 0), None)
        num_frames = parts["time_s"].num_values
        times = largest["time_s"], largest["duration_s"]
        return State(outcome, ProbeSummary(largest["fingerprint"], largest["content"], num_frames, *times))


class States:
    """Cached states of a store's objects.

    Args:
        store: the store.
    """

    def __init__(self, store: Store) -> None:
        """Reads the cache."""
        self._store, self._uri = store, files.join(store.uri, "_state.parquet")
        self._cached: dict[str, tuple[str, State]] = {}
        self._changed = False
        with suppress(OSError, pa.ArrowException, *sealed.DECODE_ERRORS):  # an unreadable cache is built anew
            table, _ = sealed.from_parquet(pa.py_buffer(files.read(self._uri)))
            columns = table.select(_SCHEMA.names).to_pydict().values()
            for key, version, status, reason, rows, *head in zip(*columns, strict=True):
                state = State(Outcome(status, reason, rows), ProbeSummary(*head) if head[0] is not None else None)
                self._cached[key] = version, state

    def of(self, kind: str, wanted: Collection[str]) -> dict[str, State]:
        """States of the wanted objects that are present.

        Args:
            kind: first part of the keys: ``videos`` or a modality.
            wanted: keys of objects.
        """
        listed = {f"{kind}/{name}": version for name, _, version in files.walk(files.join(self._store.uri, kind))}
        for key in [key for key in self._cached if key.startswith(f"{kind}/") and key not in listed]:
            del self._cached[key]
        present = [key for key in wanted if key in listed]
        new = [key for key in present if self._cached.get(key, ("", None))[0] != listed[key]]
        if new:
            self._changed = True
            for key, state in zip(new, self._read(new), strict=True):
                self._cached[key] = listed[key], state
        return {key: self._cached[key][1] for key in present}

    def _read(self, keys: Collection[str]) -> Iterable[State]:
        if "://" not in self._store.uri:  # threads do not speed up reads from a disk
            return [State.of(self._store, key) for key in keys]
        with ThreadPoolExecutor(NUM_THREADS) as threads:
            return list(threads.map(partial(State.of, self._store), keys))

    def save(self) -> None:
        """Writes the cache, if it changed; a read-only store is left without one."""
        if not self._changed:
            return
        rows = [
            (key, version, *astuple(state.outcome), *(astuple(state.head) if state.head else (None,) * 5))
            for key, (version, state) in sorted(self._cached.items())
        ]
        columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), _SCHEMA, strict=True)]
        with suppress(OSError):
            files.write(self._uri, sealed.to_parquet(pa.table(columns, schema=_SCHEMA), {}))
