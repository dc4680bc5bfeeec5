"""Cache of object statuses, keyed by ETag or modification time.

    STORE/_state/<partition:02d>.parquet      one row per probe and clip; a cache only, no result depends on it

With it, a finished job is recognised by listings and a read per partition, on a disk and in a bucket. A partition holds
the objects of the videos whose readable names have the same hash, so that large corpora are planned part by part.
"""

import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from affect.storage import files, sealed
from affect.storage.store import Outcome, Store, naming_object, slug

NUM_THREADS = 32
NUM_PARTITIONS = 64
"""Partitions of the cache; one has 16,000 of a million videos."""
MAX_TOGETHER = 20_000
"""Most videos of several partitions that are planned together; a partition with more is planned alone."""
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


def partition_of(name: str) -> int:
    """Partition of a video, from the readable name (slug) that the keys of its objects have."""
    return zlib.crc32(name.encode(errors="surrogateescape")) % NUM_PARTITIONS


def groups(paths: Sequence[str]) -> list[list[int]]:
    """Splits videos into groups that are planned one after the other, so that a large corpus takes little memory.

    Args:
        paths: relative paths of the videos.

    Returns:
        Indices of the videos of each group. A group has whole partitions, and so does a job with few videos as a whole.
    """
    found: dict[int, list[int]] = defaultdict(list)
    for index, path in enumerate(paths):
        found[partition_of(slug(path))].append(index)
    result: list[list[int]] = []
    for _, indices in sorted(found.items()):
        if result and len(result[-1]) + len(indices) <= MAX_TOGETHER:
            result[-1] += indices
        else:
            result.append(indices)
    return result


def stored_states(
    store: "Store", kind: str, paths: Sequence[str], keys: Sequence[str], *, save: bool = True
) -> list["State | None"]:
    """States of one object of each video; None where it is not there.

    Args:
        store: the store.
        kind: first part of the keys.
        paths: relative paths of the videos.
        keys: keys of the objects.
        save: whether the cache is updated.
    """
    states = States(store)
    found: list[State | None] = [None] * len(keys)
    for group in groups(paths):
        present = states.of(kind, [keys[i] for i in group])
        for i in group:
            found[i] = present.get(keys[i])
        states.forget(save=save)
    return found


class States:
    """Cached states of a store's objects.

    Objects are listed once, at the first call for their kind. A listed object takes the bytes of its name and version.

    Args:
        store: the store.
    """

    def __init__(self, store: Store) -> None:
        """Stores the place; nothing is read."""
        self._store, self._uri = store, files.join(store.uri, "_state")
        self._present: set[str] | None = None
        self._listed: dict[str, list[bytearray]] = {}
        self._cached: dict[int, dict[str, tuple[str, State]]] = {}
        self._changed: set[int] = set()
        self._gone: set[str] = set()

    def of(self, kind: str, wanted: Collection[str]) -> dict[str, State]:
        """States of the wanted objects that are present.

        Args:
            kind: first part of the keys: ``videos`` or a modality.
            wanted: keys of objects.
        """
        if kind not in self._listed:
            self._listed[kind] = self._list(kind)
        by_partition: dict[int, list[str]] = defaultdict(list)
        for key in wanted:
            by_partition[_partition_of_key(key)].append(key)
        self._load(by_partition.keys() - self._cached.keys())
        found: dict[str, State] = {}
        new: dict[str, str] = {}
        for number, keys in by_partition.items():
            listed, cached = dict(self._versions(kind, number)), self._cached[number]
            if gone := [key for key in cached if key.startswith(f"{kind}/") and key not in listed]:
                self._gone.update(gone)
                for key in gone:
                    del cached[key]
            for key in keys:
                if version := listed.get(key):
                    known = cached.get(key)
                    if known and known[0] == version:
                        found[key] = known[1]
                    else:
                        new[key] = version
        for key, state in zip(new, self._read(new), strict=True):
            number = _partition_of_key(key)
            self._cached[number][key] = new[key], state
            self._changed.add(number)
        return found | {key: self._cached[_partition_of_key(key)][key][1] for key in new}

    def _list(self, kind: str) -> list[bytearray]:
        """Keys and versions of all objects of a kind, by partition."""
        listed = [bytearray() for _ in range(NUM_PARTITIONS)]
        for name, _, version in files.walk(files.join(self._store.uri, kind)):
            key = f"{kind}/{name}"
            listed[_partition_of_key(key)] += f"{key}\0{version}\0".encode(errors="surrogateescape")
        return listed

    def _versions(self, kind: str, number: int) -> Iterator[tuple[str, str]]:
        """Keys and versions of the listed objects of a kind and partition."""
        words = self._listed[kind][number].decode(errors="surrogateescape").split("\0")
        return zip(words[:-1:2], words[1::2], strict=True)

    def _load(self, numbers: Collection[int]) -> None:
        """Reads partitions of the cache."""
        if numbers and self._present is None:
            self._present = {name for name, _, _ in files.walk(self._uri)}
        there = [number for number in numbers if f"{number:02d}.parquet" in (self._present or ())]
        self._cached |= {number: {} for number in numbers}
        with ThreadPoolExecutor(NUM_THREADS if "://" in self._uri else 1) as threads:
            for number, rows in zip(there, threads.map(self._partition, there), strict=True):
                self._cached[number] = rows

    def _partition(self, number: int) -> dict[str, tuple[str, State]]:
        """Rows of a partition of the cache; none if it is missing or damaged."""
        with suppress(OSError, pa.ArrowException, *sealed.DECODE_ERRORS):  # an unreadable cache is built anew
            table, _ = sealed.from_parquet(pa.py_buffer(files.read(self._place(number))))
            columns = table.select(_SCHEMA.names).to_pydict().values()
            return {
                key: (
                    version,
                    State(Outcome(status, reason, rows), ProbeSummary(*head) if head[0] is not None else None),
                )
                for key, version, status, reason, rows, *head in zip(*columns, strict=True)
            }
        return {}

    def _place(self, number: int) -> str:
        return files.join(self._uri, f"{number:02d}.parquet")

    def _read(self, keys: Collection[str]) -> Iterable[State]:
        if "://" not in self._store.uri:  # threads do not speed up reads from a disk
            return [State.of(self._store, key) for key in keys]
        with ThreadPoolExecutor(NUM_THREADS) as threads:
            return list(threads.map(partial(State.of, self._store), keys))

    def forget(self, *, save: bool = False) -> None:
        """Drops all partitions from memory.

        Args:
            save: whether those that changed are written before; a read-only store is left without them. Rows that
                another job wrote meanwhile are kept.
        """
        for number in self._changed if save else ():
            others = {key: row for key, row in self._partition(number).items() if key not in self._gone}
            with suppress(OSError):
                files.write(self._place(number), sealed.to_parquet(_table(others | self._cached[number]), {}))
        self._cached, self._changed, self._gone = {}, set(), set()


def _partition_of_key(key: str) -> int:
    """Partition of an object: ``videos/<slug>-<hash>.parquet`` or ``<kind>/<address>/<slug>-<hash>/<clip>.parquet``."""
    name = key.rsplit("/", 2)[-1 if key.startswith("videos/") else 1]
    return partition_of(name.rpartition("-")[0])


def _table(rows: dict[str, tuple[str, State]]) -> pa.Table:
    """Table of a partition, in the order of the keys."""
    values = [
        (key, version, state.outcome.status, state.outcome.reason, state.outcome.rows, *_fields(state.head))
        for key, (version, state) in sorted(rows.items())
    ]
    columns = [pa.array(column, field.type) for column, field in zip(zip(*values, strict=True), _SCHEMA, strict=True)]
    return pa.table(columns, schema=_SCHEMA)


def _fields(head: ProbeSummary | None) -> tuple[Any, ...]:
    if head is None:
        return (None,) * 5
    return head.fingerprint, head.content, head.num_frames, head.last_s, head.duration_s
