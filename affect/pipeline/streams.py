"""The shapes of Ray Data streams: a task per row, and pools of actors that grow."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy
from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator

from affect.pipeline.cluster import actors, check_room, labels_of, share_of
from affect.settings.extraction import Pool

MAX_BLOCKS = 256
"""Tasks of :func:`each` that are made at most; more rows than that share them."""
MODEL_BYTES = 2.0 * (1 << 30)
"""Memory that an actor with trained models may take: WavLM-Large is 1.2 GiB, torch and Ray .6."""

Row = dict[str, Any]


def each(rows: Sequence[Row], work: Callable[[Row], Row], num_cpus: float) -> Iterator[Row]:
    """Rows done by tasks, wherever the cluster has room; in any order, each as soon as its task has ended.

    Args:
        rows: one or more.
        work: does one row.
        num_cpus: of a task.
    """
    stream = ray.data.from_items(list(rows), override_num_blocks=min(len(rows), MAX_BLOCKS))
    stream.context.enable_progress_bars = False
    yield from stream.map(work, num_cpus=num_cpus).iter_rows()


def on_actors(
    stream: ray.data.Dataset, actor: type, arguments: Sequence[Any], settings: Pool, fewest: int, most: int
) -> ray.data.Dataset:
    """A stream whose rows actors do, one row at a time each.

    Args:
        stream: the rows.
        actor: its instances take a row as a batch of one.
        arguments: of its constructor.
        settings: what an actor holds, and where it may be.
        fewest: actors that are started at once.
        most: actors that the pool grows to.
    """
    _pass_by_value()
    return stream.map_batches(
        actor,
        fn_constructor_args=tuple(arguments),
        batch_size=1,
        num_cpus=settings.num_cpus,
        num_gpus=settings.num_gpus or None,
        label_selector=labels_of(settings),
        compute=ActorPoolStrategy(min_size=fewest, max_size=most),
    )


@cache
def _pass_by_value() -> None:
    """Have Ray Data hand its two constructor arguments, of a few KB, to an actor by value.

    It hands references over, of which Ray warns at every pool, in red, that such an actor cannot be started again if
    they are lost. There is no public way (https://github.com/ray-project/ray/issues/57733).
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
    """See that an actor which runs trained models has room, before hours of other work.

    Raises:
        ValueError: no node has.
    """
    check_room([share_of("--inference", settings)], "lower --inference.num-cpus or --inference.num-gpus")


def pool(rows: Sequence[Row], actor: type, arguments: Sequence[Any], settings: Pool) -> Iterator[Row]:
    """Rows done by actors that run trained models, one row at a time each, in any order.

    The pool grows to what the cluster has room for.

    Args:
        rows: one or more.
        actor: its instances take a row as a batch of one.
        arguments: of its constructor.
        settings: a run's ``inference``: what an actor holds, and how many there may be.

    Raises:
        ValueError: no node has room for an actor, which would wait for ever.
    """
    check_inference(settings)
    most = actors(settings, len(rows), MODEL_BYTES)
    stream = ray.data.from_items(list(rows), override_num_blocks=len(rows))
    stream.context.enable_progress_bars = False
    yield from on_actors(stream, actor, arguments, settings, min(settings.min_actors, most), most).iter_rows()
