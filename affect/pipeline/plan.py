"""From a folder of videos to clips of work: probe, cut, find what is missing, order it."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from affect import schema, weights
from affect.config import Kind, Modality, Pool, Run, Stage, address
from affect.corpus import affwild2, video
from affect.corpus.clip import Clip, Extracted
from affect.corpus.video import MediaError, Probe
from affect.corpus.videos import File, Found
from affect.pipeline.cluster import Share, check_room, share_of
from affect.pipeline.graph import each
from affect.pipeline.state import Head, State, States
from affect.pipeline.store import Outcome, Store, probe_key, unit_key
from affect.timeline import TIME_TOLERANCE_S

MISNAMED = "its name is not UTF-8: rename it"
PATIENCE, MIN_PATIENCE_S = 400.0, 600.0
"""Seconds of work that a second of video may take before what works on it counts as stuck, and the least."""
SHORT_FIRST = 2
"""Short clips that a run begins with: something is done within seconds, and what would fail always fails at once."""
READING_CPUS = 0.1
"""CPUs that Ray Data keeps for reading rows."""


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
    head: Head | None
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
    missing: tuple[Kind, ...]


def addresses(run: Run) -> dict[Modality, str]:
    """Address of each extracted modality's features: everything that changes their numbers.

    Raises:
        WeightsError: weights that a setting names cannot be had.
    """
    settings = {m: getattr(run, m) for m in run.extracted}
    # a folder's path says nothing about its numbers, its content does
    return {m: address(schema.VERSION, m, run.grid, _unnamed(s), _content(m, run)) for m, s in settings.items()}


def description_address(run: Run) -> str:
    """Address of descriptions in words.

    Raises:
        WeightsError: weights that a setting names cannot be had.
    """
    settings = [_unnamed(run.behavior), _unnamed(run.description)]
    return address(schema.VERSION, "description", run.grid, settings, _content("description", run))


class Wanted(NamedTuple):
    """What a job reads or extracts of a folder of videos.

    Args:
        prompts: people that behaviour is asked about, by stem.
        where: address by kind.
    """

    prompts: dict[str, tuple[str, ...]]
    where: dict[Kind, str]


def wanted(run: Run, found: Collection[str], tracks: Iterable[str], *, describe: bool = False) -> Wanted:
    """What a run reads of videos: every command that names the same run, videos and labels means the same objects.

    Args:
        run: the run.
        found: stems of the videos.
        tracks: names of known tracks, which decide what behaviour is asked.
        describe: whether descriptions in words are meant, too.

    Raises:
        ValueError: weights that cannot be had.
    """
    prompts = prompts_of(found, tracks, run.behavior.ask)
    where: dict[Kind, str] = dict(addresses(run).items())
    if describe:
        where["description"] = description_address(run)
    return Wanted(prompts, where)


def _content(kind: Kind, run: Run) -> list[str]:
    """What weights and prompts numbers or words come from."""
    if kind == "face":
        names = [run.face.landmarker] + [run.face.yolo_weights] * (run.face.detector == "yolo")
        return [*_encoder(run), *(weights.identity(name) for name in names)]
    if kind in ("behavior", "description"):
        from affect.behavior.prompt import PROMPTS, VERSION

        weight = weights.identity(run.behavior.weights, run.behavior.revision)
        return [weight, f"prompt {VERSION}", *PROMPTS.values()]
    return []


def _encoder(run: Run) -> list[str]:
    """What the frame encoder's numbers come from, if there is one."""
    if not run.face.weights:
        return []
    try:
        return [weights.identity(run.face.weights)]
    except weights.WeightsError as error:
        raise weights.WeightsError(
            f"{error}. GRADA, the frame encoder, has not been published by its authors: train one on labelled pictures "
            "(jobs/train.py grada), name it with --face.weights, or take a recipe that needs none: audio, behavior, "
            "behavior_vision, behavior_dense"
        ) from error


def _unnamed(settings: Stage) -> dict[str, Any]:
    skipped = {f.name for f in fields(Stage)} | {"weights", "revision", "landmarker", "yolo_weights", "ask"}
    return {f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in skipped}


def prompts_of(stems: Iterable[str], tracks: Iterable[str], always: Iterable[str] = ()) -> dict[str, tuple[str, ...]]:
    """People that behaviour is asked about, per video: ``neutral``, who ``always`` is, and whom a label names."""
    known = list(tracks)
    videos = set(stems)
    asked = {stem: {"neutral", *always} for stem in videos}
    for track in known:
        try:
            stem = affwild2.video_of(track, videos)
        except affwild2.LabelError:
            continue  # labels of videos that are not here
        person = affwild2.person_of(track, stem, known, videos)
        if person != "main":
            asked[stem].add(person)
    order = ("neutral", "left", "right")
    return {stem: tuple(p for p in order if p in people) for stem, people in asked.items()}


def probe_videos(
    found: Found,
    store: Store,
    prompts: Mapping[str, tuple[str, ...]],
    *,
    only: Collection[str] | None = None,
    retry_failed: bool = False,
) -> list[Video]:
    """Probe every video that has not been probed, in parallel.

    Args:
        found: the videos.
        store: keeps the probes.
        prompts: people asked about per video, ``neutral`` where it says nothing.
        only: stems of the videos that are wanted; all of them if not given.
        retry_failed: whether videos that could not be used are probed again.

    Returns:
        One entry per video, sorted by path; a video that cannot be used has a reason and no probe.
    """
    chosen = [file for stem, file in found.videos.items() if only is None or stem in only]
    rows = [{"path": file.path, "uri": file.uri, "key": key_of(file)} for file in chosen]
    keys = [row["key"] for row in rows]
    states = States(store)
    known = states.of("videos", keys)
    failed = {key for key in keys if retry_failed and key in known and known[key].outcome.status == "failed"}
    new = [row for row in rows if row["key"] not in known or row["key"] in failed]
    unread = {}
    if new:
        done = each(new, partial(_probe, store=store), 0.5)
        unread = {row["key"]: State(Outcome("failed", row["error"], 0), None) for row in done if row["error"]}
        known = states.of("videos", keys)
    states.keep()
    videos = []
    for file, key in zip(chosen, keys, strict=True):
        state, asked = unread.get(key) or known[key], prompts.get(file.stem, ("neutral",))
        videos.append(Video(file.stem, file.uri, file.path, file.bytes, key, state.head, state.outcome.reason, asked))
    unnamed = found.misnamed if only is None else []
    return videos + [Video(PurePosixPath(uri).name, uri, uri, 0, "", None, MISNAMED) for uri in unnamed]


def key_of(file: File) -> str:
    """Key of a video's probe."""
    return probe_key(file.path, file.bytes, file.version)


def _probe(row: dict[str, Any], store: Store) -> dict[str, Any]:
    """Write a video's probe, or why it has none; say what kept it from being read, which is not written."""
    try:
        found = Extracted(probe_table(video.probe(row["uri"], row["path"])))
    except MediaError as error:
        found = _nothing(str(error))
    except Exception as error:  # whatever it is, the other videos are probed
        return {"key": row["key"], "error": f"cannot be read ({getattr(error, 'strerror', None) or error})"}
    store.put(row["key"], found)
    return {"key": row["key"], "error": ""}


def _nothing(reason: str) -> Extracted:
    return Extracted(schema.VIDEO.empty_table(), "failed", reason)


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


def keys_of(video: Video, run: Run, where: Mapping[Any, str], kind: Kind) -> list[str]:
    """Keys of a usable video's objects of one kind, in order of time; ``where`` has the addresses by kind."""
    assert video.head is not None
    number = num_clips(video.head.last_s, run)
    return unit_keys(kind, where[kind], video.prompts, video.path, video.head.fingerprint, number)


def unit_keys(kind: Kind, wanted: str, prompts: tuple[str, ...], path: str, fingerprint: str, number: int) -> list[str]:
    """The same from what decides them: the kind's address, who is asked about, the video, its number of clips."""
    if kind in ("behavior", "description"):
        wanted = address(wanted, list(prompts))
    return [unit_key(kind, wanted, path, fingerprint, n) for n in range(number)]


def missing_units(
    videos: list[Video], run: Run, where: Mapping[Any, str], store: Store, *, retry_failed: bool
) -> tuple[list[Unit], list[Outcome]]:
    """Units to do, a few short ones and then the longest first, and how the units that exist ended.

    Args:
        videos: from :func:`probe_videos`.
        run: the run.
        where: addresses by kind, from :func:`addresses`, which reads all local weights: once a job is enough.
        store: the store.
        retry_failed: whether units that failed are to be done again.
    """
    states = States(store)
    outcomes: list[Outcome] = []
    missing: dict[tuple[int, int], list[Kind]] = {}
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
    states.keep()
    units = [Unit(index, number, tuple(kinds)) for (index, number), kinds in missing.items()]
    units.sort(key=lambda unit: -seconds(videos[unit.video], unit, run))
    return units[-SHORT_FIRST:] + units[:-SHORT_FIRST], outcomes


def limit_s(pool: Stage, length_s: float) -> float:
    """Seconds that a clip of some length may take."""
    return pool.limit_s or max(MIN_PATIENCE_S, PATIENCE * length_s)


def seconds(video: Video, unit: Unit, run: Run) -> float:
    """Seconds of video in a unit."""
    assert video.head is not None
    start = unit.number * run.grid.clip_s
    return min(video.head.duration_s, start + run.grid.clip_s) - start


def check_pools(run: Run, kinds: Iterable[Kind]) -> None:
    """Check that the actors that all stages start with fit on the nodes at once and leave something for reading.

    Raises:
        ValueError: they do not; names the stage that has no room and the node that comes nearest.
    """
    pools: dict[Kind, Pool] = {kind: getattr(run, kind) for kind in kinds}
    shares = [share_of(f"--{kind}", pool) for kind, pool in pools.items() for _ in range(pool.min_actors)]
    largest = max(pools, key=lambda kind: (pools[kind].num_gpus, pools[kind].num_cpus))
    flags = f"--{largest}.num-cpus" + (f" and --{largest}.num-gpus" if pools[largest].num_gpus else "")
    check_room([*shares, Share("reading", READING_CPUS, 0.0)], f"stages hold it all the time: lower {flags}")
