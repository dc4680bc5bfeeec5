"""Clips to extract: cut from probed videos, with their keys, without existing ones, in the order of work."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from affect.corpus.clip import Clip
from affect.corpus.probe import Probe
from affect.corpus.videos import File
from affect.modalities import KINDS
from affect.settings.address import address
from affect.settings.extraction import Stage
from affect.settings.run import Run
from affect.storage import schema
from affect.storage.state import ProbeSummary, State, States, groups
from affect.storage.store import Store, probe_key, unit_key
from affect.timeline import TIME_TOLERANCE_S

MISNAMED = "its name is not UTF-8: rename it"


LIMIT_PER_S, MIN_LIMIT_S = 400.0, 600.0
"""Default time limit of a clip: seconds of work per second of video, and the minimum in seconds."""


SHORT_FIRST = 2
"""Number of short clips at the start of a run: first results, and errors that affect every clip, come in seconds."""


@dataclass(frozen=True, slots=True)
class Video:
    """A probed video.

    Args:
        stem: file name without suffix; names of tracks begin with it.
        uri: path or URI.
        path: path relative to the folder or bucket prefix of videos.
        bytes: file size.
        probe_key: key of its probe in the store.
        head: summary of its probe; None if the video is unusable.
        reason: reason why the video is unusable; else empty.
        prompts: person prompts of the behaviour.
    """

    stem: str
    uri: str
    path: str
    bytes: int
    probe_key: str
    head: ProbeSummary | None
    reason: str
    prompts: tuple[str, ...] = ("neutral",)


@dataclass(frozen=True, slots=True)
class Unit:
    """A clip and the modalities to extract from it: one row of the pipeline.

    Args:
        video: index into the list of videos.
        number: 0-based number of the clip in the video.
        missing: kinds of features without an object in the store.
    """

    video: int
    number: int
    missing: tuple[str, ...]


def key_of(file: File) -> str:
    """Key of a video's probe."""
    return probe_key(file.path, file.bytes, file.version)


def probe_table(probe: Probe) -> pa.Table:
    """Table of a probe for the store."""
    values = {f.name: [getattr(probe, f.name)] for f in fields(Probe)}
    return pa.table(values | {"duration_s": [probe.clock.duration_s]}).select(schema.VIDEO.names).cast(schema.VIDEO)


def load_probe(store: Store, key: str) -> Probe:
    """Reads the probe of a usable video."""
    [row] = store.get(key).table.to_pylist()
    row["time_s"] = np.array(row["time_s"])
    return Probe(**{f.name: row[f.name] for f in fields(Probe)})


def num_clips(last_s: float, run: Run) -> int:
    """Number of clips of a video, from the time of its last frame; each contains at least one frame."""
    return int((last_s + TIME_TOLERANCE_S) // run.grid.clip_s) + 1


def make_clip(uri: str, prompts: tuple[str, ...], probe: Probe, number: int, run: Run) -> Clip:
    """The clip of a video with a given number."""
    start = number * run.grid.clip_s
    return Clip(uri, probe, start, start + run.grid.clip_s, run.grid, prompts)


def keys_of(video: Video, run: Run, where: Mapping[Any, str], kind: str) -> list[str]:
    """Keys of a usable video's clip objects of one kind, in order of time; ``where`` maps kinds to addresses."""
    assert video.head is not None
    number = num_clips(video.head.last_s, run)
    return unit_keys(kind, where[kind], video.prompts, video.path, video.head.fingerprint, number)


def unit_keys(kind: str, mark: str, prompts: tuple[str, ...], path: str, fingerprint: str, number: int) -> list[str]:
    """Keys of a video's clip objects, from address, prompts, path, fingerprint and number of clips."""
    mark = with_prompts(kind, mark, prompts)
    return [unit_key(kind, mark, path, fingerprint, n) for n in range(number)]


def with_prompts(kind: str, mark: str, prompts: tuple[str, ...]) -> str:
    """Address of a video's features: that of the kind, with the prompts if its rows depend on them."""
    return address(mark, list(prompts)) if KINDS[kind].by_person else mark


def clip_states(
    videos: Sequence[Video], run: Run, where: Mapping[Any, str], store: Store, *, save: bool = True
) -> Iterator[tuple[str, int, list[str], Mapping[str, State]]]:
    """States of the clips of all usable videos, a group of videos at a time, which bounds the memory.

    Args:
        videos: from :func:`affect.pipeline.probe.probe_videos`.
        run: the run.
        where: addresses by kind.
        store: the store.
        save: whether the cache of states is updated.

    Yields:
        Kind, index of the video, keys of its clips in order of time, and states of those that are present.
    """
    states = States(store)
    for group in groups([video.path for video in videos]):
        for kind in where:
            keys = {i: keys_of(videos[i], run, where, kind) for i in group if videos[i].head}
            present = states.of(kind, [key for of_video in keys.values() for key in of_video])
            for index, of_video in keys.items():
                yield kind, index, of_video, present
        states.forget(save=save)


def missing_units(
    videos: list[Video], run: Run, where: Mapping[Any, str], store: Store, *, retry_failed: bool
) -> tuple[list[Unit], Counter[tuple[str, str]]]:
    """Units to do (a few short ones, then the longest first), and numbers of existing ones by status and reason.

    Args:
        videos: from :func:`affect.pipeline.probe.probe_videos`.
        run: the run.
        where: addresses by kind, from :func:`affect.plan.addresses.feature_addresses` (which reads all local weights:
            call it once per job).
        store: the store.
        retry_failed: whether failed units are included.
    """
    existing: Counter[tuple[str, str]] = Counter()
    missing: dict[tuple[int, int], list[str]] = {}
    for kind, index, keys, states in clip_states(videos, run, where, store):
        for number, state in enumerate(map(states.get, keys)):
            if state is None or (retry_failed and state.outcome.status == "failed"):
                missing.setdefault((index, number), []).append(kind)
            else:
                existing[state.outcome.status, state.outcome.reason] += 1
    units = [Unit(index, number, tuple(kinds)) for (index, number), kinds in missing.items()]
    units.sort(key=lambda unit: (-unit_seconds(videos[unit.video], unit, run), unit.video, unit.number))
    return units[-SHORT_FIRST:] + units[:-SHORT_FIRST], existing


def limit_s(pool: Stage, length_s: float) -> float:
    """Time limit in seconds for a clip of ``length_s`` seconds."""
    return pool.limit_s or default_limit_s(length_s)


def default_limit_s(length_s: float) -> float:
    """Time limit in seconds for work on ``length_s`` seconds of video, where no setting says another one."""
    return max(MIN_LIMIT_S, LIMIT_PER_S * length_s)


def unit_seconds(video: Video, unit: Unit, run: Run) -> float:
    """Length of a unit's clip in seconds."""
    assert video.head is not None
    start = unit.number * run.grid.clip_s
    return min(video.head.duration_s, start + run.grid.clip_s) - start
