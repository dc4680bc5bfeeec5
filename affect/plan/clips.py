"""Clips of work: cut from probed videos, keyed, ordered, without those that exist."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from affect.corpus.clip import Clip
from affect.corpus.video import Probe
from affect.corpus.videos import File
from affect.modalities import KINDS
from affect.settings.address import address
from affect.settings.extraction import Stage
from affect.settings.run import Run
from affect.storage import schema
from affect.storage.state import ProbeSummary, States
from affect.storage.store import Outcome, Store, probe_key, unit_key
from affect.timeline import TIME_TOLERANCE_S

MISNAMED = "its name is not UTF-8: rename it"


PATIENCE, MIN_PATIENCE_S = 400.0, 600.0
"""Seconds of work that a second of video may take before what works on it counts as stuck, and the least."""


SHORT_FIRST = 2
"""Short clips that a run begins with: something is done within seconds, and what would fail always fails at once."""


@dataclass(frozen=True)
class Video:
    """A video that was probed.

    Args:
        stem: its file name without the suffix, what tracks are named after.
        uri: where it is.
        path: relative to the folder or bucket of videos.
        bytes: its size.
        probe_key: key of its probe in the store.
        head: what its probe says in short, None if it cannot be used.
        reason: why it cannot be used.
        prompts: the people that behaviour is asked about.
    """

    stem: str
    uri: str
    path: str
    bytes: int
    probe_key: str
    head: ProbeSummary | None
    reason: str
    prompts: tuple[str, ...] = ("neutral",)


@dataclass(frozen=True)
class Unit:
    """A clip and which of its modalities have to be done: a row of the pipeline.

    Args:
        video: index into the plan's videos.
        number: the clip's number within the video.
        missing: what has no object.
    """

    video: int
    number: int
    missing: tuple[str, ...]


def key_of(file: File) -> str:
    """Key of a video's probe."""
    return probe_key(file.path, file.bytes, file.version)


def probe_table(probe: Probe) -> pa.Table:
    """A probe as the store keeps it."""
    values = {f.name: [getattr(probe, f.name)] for f in fields(Probe)}
    return pa.table(values | {"duration_s": [probe.clock.duration_s]}).select(schema.VIDEO.names).cast(schema.VIDEO)


def load_probe(store: Store, key: str) -> Probe:
    """Read a usable video's probe."""
    [row] = store.get(key).table.to_pylist()
    row["time_s"] = np.array(row["time_s"])
    return Probe(**{f.name: row[f.name] for f in fields(Probe)})


def num_clips(last_s: float, run: Run) -> int:
    """Clips of a video by the time of its last frame; every one owns at least a frame."""
    return int((last_s + TIME_TOLERANCE_S) // run.grid.clip_s) + 1


def make_clip(uri: str, prompts: tuple[str, ...], probe: Probe, number: int, run: Run) -> Clip:
    """A video's clip by its number."""
    start = number * run.grid.clip_s
    return Clip(uri, probe, start, start + run.grid.clip_s, run.grid, prompts)


def keys_of(video: Video, run: Run, where: Mapping[Any, str], kind: str) -> list[str]:
    """Keys of a usable video's objects of one kind, in order of time; ``where`` has the addresses by kind."""
    assert video.head is not None
    number = num_clips(video.head.last_s, run)
    return unit_keys(kind, where[kind], video.prompts, video.path, video.head.fingerprint, number)


def unit_keys(kind: str, wanted: str, prompts: tuple[str, ...], path: str, fingerprint: str, number: int) -> list[str]:
    """The same from what decides them: the kind's address, who is asked about, the video, its number of clips."""
    if KINDS[kind].by_person:
        wanted = address(wanted, list(prompts))
    return [unit_key(kind, wanted, path, fingerprint, n) for n in range(number)]


def missing_units(
    videos: list[Video], run: Run, where: Mapping[Any, str], store: Store, *, retry_failed: bool
) -> tuple[list[Unit], list[Outcome]]:
    """Units to do, a few short ones and then the longest first, and how the units that exist ended.

    Args:
        videos: from :func:`probe_videos`.
        run: the run.
        where: addresses by kind, from :func:`feature_addresses`, which reads all local weights: once a job is enough.
        store: the store.
        retry_failed: whether units that failed are to be done again.
    """
    states = States(store)
    outcomes: list[Outcome] = []
    missing: dict[tuple[int, int], list[str]] = {}
    for kind in where:
        keys = {i: keys_of(entry, run, where, kind) for i, entry in enumerate(videos) if entry.head}
        present = states.of(kind, [key for own in keys.values() for key in own])
        for index, own in keys.items():
            for number, key in enumerate(own):
                outcome = present[key].outcome if key in present else None
                if outcome is None or (retry_failed and outcome.status == "failed"):
                    missing.setdefault((index, number), []).append(kind)
                else:
                    outcomes.append(outcome)
    states.save()
    units = [Unit(index, number, tuple(kinds)) for (index, number), kinds in missing.items()]
    units.sort(key=lambda unit: -unit_seconds(videos[unit.video], unit, run))
    return units[-SHORT_FIRST:] + units[:-SHORT_FIRST], outcomes


def limit_s(pool: Stage, length_s: float) -> float:
    """Seconds that a clip of some length may take."""
    return pool.limit_s or max(MIN_PATIENCE_S, PATIENCE * length_s)


def unit_seconds(video: Video, unit: Unit, run: Run) -> float:
    """Seconds of video in a unit."""
    assert video.head is not None
    start = unit.number * run.grid.clip_s
    return min(video.head.duration_s, start + run.grid.clip_s) - start
