"""Batches by Ray Data: tasks anywhere on the cluster read what a model learns from, some batches ahead of it.

A worker reads its own shares of the batches in the order that everyone draws from the seed, so that any number of
workers learns the same.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import ray
import ray.data
import torch

from affect.corpus.track import Track
from affect.learning.batches import Batch, Share, Task, collate
from affect.storage.rows import raise_open_file_limit
from affect.storage.store import Store
from affect.tracks.tables import TrackRef, load_track
from affect.trained.trunk import with_trunk

BATCHES_PER_TASK = 8
"""Batches that one reading task makes: 23 tasks of one each took 20 s, 3 of eight 2 s."""
_INPUT = "input."


def in_order(
    rows: list[dict[str, Any]], num_tasks: int, work: Callable[[dict[str, Any]], dict[str, Any]], num_cpus: float
) -> Iterator[dict[str, Any]]:
    """What Ray Data's tasks make of rows, in the rows' order, while it is read."""
    if not rows:
        return
    stream = ray.data.from_items(rows, override_num_blocks=num_tasks)
    stream.context.execution_options.preserve_order = True
    stream.context.enable_progress_bars = False
    yield from stream.map(work, num_cpus=num_cpus).iter_rows()


def in_batches(
    rows: list[dict[str, Any]], work: Callable[[dict[str, Any]], dict[str, Any]], num_cpus: float
) -> Iterator[dict[str, Any]]:
    """The same of rows that each become a batch."""
    return in_order(rows, -(-len(rows) // BATCHES_PER_TASK), work, num_cpus)


def to_row(batch: Batch) -> dict[str, Any]:
    """A batch as Ray Data carries it."""
    inputs = {f"{_INPUT}{name}": value.numpy() for name, value in batch.inputs.items()}
    return inputs | {name: getattr(batch, name).numpy() for name in ("padding", "gold", "annotated")}


def to_batch(row: Mapping[str, Any]) -> Batch:
    """The reverse of :func:`to_row`."""
    inputs = {n.removeprefix(_INPUT): torch.tensor(value) for n, value in row.items() if n.startswith(_INPUT)}
    return Batch(inputs, *(torch.tensor(row[name]) for name in ("padding", "gold", "annotated")))


class TrackLoader:
    """Makes batches of tracks' windows with Ray Data: what is large of a track never lies in a worker.

    Args:
        modality: whose part is read.
        refs: tracks by name.
        store: where they are.
        trunk: address of the states of the audio model's frozen layers; empty: waveforms are read.
        num_cpus: of one reading task.
    """

    def __init__(self, modality: str, refs: Mapping[str, TrackRef], store: Store, trunk: str, num_cpus: float) -> None:
        """Remember where things are."""
        self._modality, self._refs, self._store, self._trunk, self._num_cpus = modality, refs, store, trunk, num_cpus

    def __call__(self, task: Task, shares: Sequence[Share], device: torch.device) -> Iterator[Batch]:
        """Batches of the shares, in order."""
        rows = [
            {"samples": [(self._refs[item.name], window) for item, window in share.samples], "length": share.length}
            for share in shares
        ]
        work = partial(_make, task=task, modality=self._modality, uri=self._store.uri, trunk=self._trunk)
        for row in in_batches(rows, work, self._num_cpus):
            yield to_batch(row).to(device)


def _make(row: dict[str, Any], task: Task, modality: str, uri: str, trunk: str) -> dict[str, Any]:
    """One share's batch."""
    examples = [task.example(_opened(uri, ref, modality, trunk), tuple(window)) for ref, window in row["samples"]]
    return to_row(collate(examples, int(row["length"])))


@lru_cache(maxsize=1024)
def _opened(uri: str, ref: TrackRef, modality: str, trunk: str) -> Track:
    """A track, whose files stay open in this process."""
    raise_open_file_limit()
    return with_trunk(load_track(Store(uri), ref, (modality,)), ref, Store(uri), trunk)
