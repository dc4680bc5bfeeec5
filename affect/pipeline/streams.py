"""Two kinds of Ray Data streams: a task per row, and pools of actors that grow."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy
from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator

from affect.pipeline.autoscaler import may_grow
from affect.pipeline.cluster import actors, check_room, labels_of, share_of
from affect.pipeline.guard import Guarded
from affect.settings.extraction import Pool
from affect.storage.attempts import Attempts
from affect.storage.store import Store

MAX_BLOCKS = 256
"""Most tasks of :func:`each`; more rows share them."""
MAX_ROWS, BLOCKS_PER_ACTOR, SINGLE_FIRST = 16, 50, 2
"""Most rows of a block of a long stream; least blocks per actor with several rows, which keeps actors equally busy;
blocks of one row at its start. A block takes 13 ms of the job's process in three stages, however many rows it has."""
MODEL_BYTES = 2.0 * (1 << 30)
"""Memory of an actor with trained models: WavLM-Large takes 1.2 GiB, torch and Ray 0.6 GiB."""

Row = dict[str, Any]


def stream_of(rows: Sequence[Row], num_blocks: int) -> ray.data.Dataset:
    """Makes a stream of rows in blocks, one task each, without Ray Data's progress bars."""
    stream: ray.data.Dataset = ray.data.from_items(list(rows), override_num_blocks=num_blocks)
    stream.context.enable_progress_bars = False
    return stream


def in_blocks(rows: Sequence[Row], num_actors: int) -> list[Sequence[Row]]:
    """Splits rows into blocks, which are scheduled as a whole: one row each, or several where rows are many.

    The first :data:`SINGLE_FIRST` blocks have one row, so that first results, and errors of all rows, come at once.

    Args:
        rows: the rows.
        num_actors: most actors of a pool.
    """
    size = min(MAX_ROWS, len(rows) // (BLOCKS_PER_ACTOR * num_actors)) or 1
    rest = rows[SINGLE_FIRST:]
    return [[row] for row in rows[:SINGLE_FIRST]] + [rest[i : i + size] for i in range(0, len(rest), size)]


def stream_of_blocks(blocks: Sequence[Sequence[Row]]) -> ray.data.Dataset:
    """Makes a stream of given blocks of rows, without Ray Data's progress bars."""
    stream: ray.data.Dataset = ray.data.from_blocks([pa.Table.from_pylist(list(block)) for block in blocks])
    stream.context.enable_progress_bars = False
    return stream


def each(rows: Sequence[Row], work: Callable[[Row], Row], num_cpus: float) -> Iterator[Row]:
    """Applies a function to rows in tasks on the whole cluster; yields results in any order, as soon as they are ready.

    Args:
        rows: one or more.
        work: makes one row's result.
        num_cpus: CPUs of a task.
    """
    yield from stream_of(rows, min(len(rows), MAX_BLOCKS)).map(work, num_cpus=num_cpus).iter_rows()


def on_actors(
    stream: ray.data.Dataset, actor: type, arguments: Sequence[Any], settings: Pool, fewest: int, most: int
) -> ray.data.Dataset:
    """Passes a stream through a pool of actors, one row per call.

    Where an autoscaler may add nodes, all actors are asked for at once: each one that waits is a demand of its own.
    Ray Data asks for one more of every kind of node together, which fails once one kind is at its limit.

    Args:
        stream: the rows.
        actor: class whose instances take a row as a batch of one.
        arguments: arguments of its constructor.
        settings: resources and node label of an actor.
        fewest: actors that are started at first.
        most: most actors of the pool.
    """
    _pass_by_value()
    return stream.map_batches(
        actor,
        fn_constructor_args=tuple(arguments),
        batch_size=1,
        num_cpus=settings.num_cpus,
        num_gpus=settings.num_gpus or None,
        label_selector=labels_of(settings),
        compute=ActorPoolStrategy(min_size=most if may_grow() else fewest, max_size=most),
    )


@cache
def _pass_by_value() -> None:
    """Makes Ray Data pass its two constructor arguments of an actor, a few KB, by value.

    It passes references, and Ray warns at every pool that an actor cannot be restarted if they are lost. There is no
    public option (https://github.com/ray-project/ray/issues/57733).
    """
    start = ActorPoolMapOperator._start_actor
    held = ("_data_context_ref", "_map_transformer_ref")
    if not all(hasattr(ActorPoolMapOperator, name) for name in held):  # another version of Ray
        return

    def started(self: ActorPoolMapOperator, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 -- Ray's own
        references = {name: getattr(self, name) for name in held}
        try:
            for name, reference in references.items():
                setattr(self, name, ray.get(reference))
            return start(self, *arguments, **named)
        finally:
            for name, reference in references.items():
                setattr(self, name, reference)

    ActorPoolMapOperator._start_actor = started  # type: ignore[method-assign]


def check_inference(settings: Pool) -> None:
    """Checks that some node has room for an actor with trained models, before hours of other work.

    Raises:
        ValueError: no node has room.
    """
    check_room([share_of("--inference", settings)], "lower --inference.num-cpus or --inference.num-gpus")


def pool(
    rows: Sequence[Row], actor: type, arguments: Sequence[Any], settings: Pool, stage: str, store: Store
) -> Iterator[Row]:
    """Passes rows through a pool of actors that run trained models, one row per call; yields results in any order.

    The pool grows as far as the cluster has room. Actors have the guarantees of :class:`affect.pipeline.guard.Guarded`.

    Args:
        rows: one or more, with the columns that ``Guarded`` reads.
        actor: class whose instances take a row as a batch of one.
        arguments: arguments of its constructor.
        settings: a run's ``inference``: resources of an actor, and the number of actors.
        stage: name of the stage in metrics.
        store: store that counts attempts.

    Raises:
        ValueError: no node has room for an actor; it would never start.
    """
    check_inference(settings)
    most = actors(settings, len(rows), MODEL_BYTES)
    stream, attempts = stream_of(rows, len(rows)), Attempts.new(store)
    given = (actor, tuple(arguments), stage, attempts)
    try:
        yield from on_actors(stream, Guarded, given, settings, min(settings.min_actors, most), most).iter_rows()
    finally:
        with suppress(OSError):  # an unwritable store has raised its own error
            attempts.close()
