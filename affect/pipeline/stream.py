"""Batches by Ray Data: tasks on the whole cluster read training data, some batches ahead of the model.

Every worker draws the same order of batches from the seed and reads its shares of them, so that results do not depend
on the number of workers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import torch

from affect.corpus.track import Track
from affect.learning.batches import Batch, Share, Task, collate
from affect.pipeline.streams import stream_of
from affect.storage.rows import raise_open_file_limit
from affect.storage.store import Store
from affect.tracks.tables import TrackRef, load_track
from affect.trained.trunk import with_trunk

BATCHES_PER_TASK = 8
"""Batches of one reading task: 23 tasks of one batch took 20 s, 3 tasks of eight took 2 s."""
_INPUT = "input."


def in_order(
    rows: Sequence[dict[str, Any]], num_tasks: int, work: Callable[[dict[str, Any]], dict[str, Any]], num_cpus: float
) -> Iterator[dict[str, Any]]:
    """Applies a function to rows in tasks; yields results in the order of the rows, as they are consumed."""
    if not rows:
        return
    stream = stream_of(rows, num_tasks)
    stream.context.execution_options.preserve_order = True
    yield from stream.map(work, num_cpus=num_cpus).iter_rows()


def in_batches(
    rows: list[dict[str, Any]], work: Callable[[dict[str, Any]], dict[str, Any]], num_cpus: float
) -> Iterator[dict[str, Any]]:
    """Makes a batch of each row in tasks, :data:`BATCHES_PER_TASK` rows per task; yields them in order."""
    return in_order(rows, -(-len(rows) // BATCHES_PER_TASK), work, num_cpus)


def to_row(batch: Batch) -> dict[str, Any]:
    """A batch as a row of Ray Data."""
    inputs = {f"{_INPUT}{name}": value.numpy() for name, value in batch.inputs.items()}
    return inputs | {name: getattr(batch, name).numpy() for name in ("padding", "gold", "annotated")}


def to_batch(row: Mapping[str, Any]) -> Batch:
    """The batch of a row from :func:`to_row`."""
    inputs = {n.removeprefix(_INPUT): torch.tensor(value) for n, value in row.items() if n.startswith(_INPUT)}
    return Batch(inputs, *(torch.tensor(row[name]) for name in ("padding", "gold", "annotated")))


class TrackLoader:
    """Makes batches of tracks' windows with Ray Data, so that no worker holds whole tracks in memory.

    Args:
        modality: modality whose part of the tracks is read.
        refs: tracks by name.
        store: store of the tracks.
        trunk: address of the states of the audio model's frozen layers; empty: waveforms are read.
        num_cpus: CPUs of one reading task.
    """

    def __init__(self, modality: str, refs: Mapping[str, TrackRef], store: Store, trunk: str, num_cpus: float) -> None:
        """Stores the arguments."""
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
    """Batch of one share."""
    examples = [task.example(_opened(uri, ref, modality, trunk), tuple(window)) for ref, window in row["samples"]]
    return to_row(collate(examples, int(row["length"])))


@lru_cache(maxsize=1024)
def _opened(uri: str, ref: TrackRef, modality: str, trunk: str) -> Track:
    """A track whose files stay open in this process."""
    raise_open_file_limit()
    return with_trunk(load_track(Store(uri), ref, (modality,)), ref, Store(uri), trunk)
