"""Cost of Ray Data per clip: the graph of an extraction whose stages do nothing."""

import os
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from .idle import Idle
from .measure import free_mib, resident_mib

KINDS = ("face", "behavior", "audio")
SINGLE = 1_000
"""Clips with a block for each."""
MANY = {2: (1_000, 10_000), 8: (1_000, 10_000, 100_000), 40: (1_000, 10_000), 170: (1_000, 10_000)}
"""Clips in blocks as an extraction has them, by actors of each of the three pools."""
ACTOR_MIB = 110.0
"""Memory of an idle actor."""
DECLARED_CPUS, ACTOR_CPUS = 64, 0.1
"""CPUs that Ray is told of, and of an actor: idle actors need none."""


def scale(single: int = SINGLE, many: Mapping[int, Sequence[int]] = MANY) -> None:
    """Time of the job's process per clip, clips per second, first result and memory, by number of clips and actors.

    Args:
        single: number of clips with a block for each.
        many: numbers of clips in blocks as an extraction has them, by actors of each pool.
    """
    from affect.pipeline import streams

    for number, counts in many.items():
        needed, free = len(KINDS) * number * ACTOR_MIB, free_mib()
        if needed > free:
            print(f"left out: {number} actors a pool take {needed:.0f} MiB, {free:.0f} are free")
            continue
        with _ray():
            with mock.patch.object(streams, "MAX_ROWS", 1):
                before = _measure(single, number)
            after = [_measure(count, number) for count in counts]
            ratio = before / after[-1]
            print(f"time of the job's process per clip, {number} actors a pool: one to a block / as it is {ratio:.1f}")


@contextmanager
def _ray() -> Iterator[None]:
    """A Ray on this machine that believes in many CPUs."""
    import logging

    import ray  # imported late: machines for the models' benchmarks may lack Ray

    os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # actors may lie in swap
    ray.init("local", logging_level=logging.ERROR, num_cpus=DECLARED_CPUS, include_dashboard=False, log_to_driver=False)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _measure(count: int, num_actors: int) -> float:
    """Streams clips through three idle pools; prints and returns milliseconds of this process per clip."""
    from affect.pipeline.streams import in_blocks, on_actors, stream_of_blocks
    from affect.settings.extraction import Pool

    blocks = in_blocks([_row(number) for number in range(count)], num_actors)
    pool = Pool(num_cpus=ACTOR_CPUS, max_actors=num_actors)
    start = time.perf_counter()
    stream = stream_of_blocks(blocks)
    for kind in KINDS:
        stream = on_actors(stream, Idle, (kind,), pool, num_actors, num_actors)
    rows = iter(stream.iter_rows())
    next(rows)
    first, cpu = time.perf_counter(), _cpu_s()
    done = 1 + sum(1 for _ in rows)
    assert done == count
    took, per_clip = time.perf_counter() - first, 1000 * (_cpu_s() - cpu) / count
    title = f"{count} clips in blocks of {max(map(len, blocks))}, {num_actors} actors a pool"
    speed = f"first after {first - start:.1f} s, then {count / took:.0f} clips/s"
    print(f"{title}: {speed}, {per_clip:.2f} ms of the job's process per clip, {resident_mib():.0f} MiB", flush=True)
    return per_clip


def _row(number: int) -> dict[str, Any]:
    """Row of a clip as an extraction has it, see :func:`affect.pipeline.extract.clip_row`."""
    return {
        "uri": f"s3://bucket/videos/recordings/video{number:07d}.mp4",
        "probe_key": f"videos/video{number:07d}-0123456789ab/00000.parquet",
        "number": 0,
        "prompts": "neutral",
        "missing": ",".join(KINDS),
        "length_s": 60.0,
        "again": False,
    }


def _cpu_s() -> float:
    """CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
