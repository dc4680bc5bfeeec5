"""The extraction graph: clips through three actor pools into the store.

    clips --> face actors --> behaviour actors --> audio actors          one Ray Data stream, all pools at work at once
                 |                  |                    |
             face/<clip>       behavior/<clip>       audio/<clip>        Parquet, written by the actor

Where descriptions in words are asked for, their actors are a fourth pool.

What travels is a small row; frames never enter the object store. An actor decodes its clip's time range itself.
"""

import errno
import faulthandler
import sys
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import ray
import ray.data
from ray.data import DataContext
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from affect import weights
from affect.console.exits import EXIT_NOTHING, EXIT_OK, EXIT_PARTIAL
from affect.corpus.clip import Clip
from affect.corpus.video import MediaError, Probe
from affect.corpus.videos import Places, find
from affect.modalities import extractor
from affect.pipeline.cluster import WAIT_FOR_NODES_S, actors, check_pools, device, nodes, share_of
from affect.pipeline.graph import on_actors
from affect.pipeline.probe import probe_videos
from affect.plan.addresses import wanted_features
from affect.plan.clips import (
    Unit,
    Video,
    limit_s,
    load_probe,
    make_clip,
    missing_units,
    num_clips,
    unit_keys,
    unit_seconds,
)
from affect.progress import LOOK_EVERY_S, Meter, say
from affect.settings.extraction import Behavior
from affect.settings.names import Kind
from affect.settings.run import Run
from affect.storage import speed
from affect.storage.attempts import MAX_ATTEMPTS, Attempts, Parts
from affect.storage.extracted import Extracted, Part
from affect.storage.state import State
from affect.storage.store import Outcome, Store
from affect.tracks.features import SCHEMAS

KEEP_EVERY_S = 5.0
"""Seconds of work on a clip after which its part is kept."""


_CLOSED = (errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""Errors of a store that takes nothing more, from anybody."""


@dataclass
class Summary:
    """What an extraction came to.

    Args:
        videos: every video that was looked at.
        done: units done now, by status; ``error`` are failures of the surroundings, not recorded.
        existing: units that were there before, by status.
        num_nodes: nodes that worked.
        reasons: why units and videos are not ``ok``, or what else has to be known of them, with how often.
    """

    videos: list[Video]
    done: Counter[str] = field(default_factory=Counter)
    existing: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    num_nodes: int = 0

    @property
    def exit_code(self) -> int:
        """0 all fine, 3 finished with failed clips or videos, 1 nothing usable."""
        both = self.done + self.existing
        if not both["ok"] + both["degraded"]:
            return EXIT_NOTHING
        unusable = any(video.head is None for video in self.videos)
        return EXIT_PARTIAL if both["failed"] + both["error"] or unusable else EXIT_OK


class UnreadError(Exception):
    """A video that cannot be read now, though nothing may be wrong with it."""


class Tally:
    """An actor that counts the seconds of video which each stage has done, and on how many nodes."""

    def __init__(self) -> None:
        """Start at nothing."""
        self._done: dict[str, float] = {}
        self._nodes: set[str] = set()

    def add(self, kind: Kind, seconds: float, node: str) -> None:
        """Count a clip."""
        self._done[kind] = self._done.get(kind, 0.0) + seconds
        self._nodes.add(node)

    def read(self) -> dict[str, float]:
        """What was counted."""
        return self._done

    def num_nodes(self) -> int:
        """Nodes that worked."""
        return len(self._nodes)


class Stage:
    """An actor that does one kind of the clips it is handed.

    Args:
        kind: which.
        run: the run.
        store: where units go.
        where: addresses by kind.
        attempts: counts those of this run.
        tally: name of the actor that hears how much is done: of a handle Ray would warn, as it does of references in
            :mod:`affect.pipeline.graph`.
    """

    def __init__(
        self, kind: Kind, run: Run, store: Store, where: dict[Kind, str], attempts: Attempts, tally: str
    ) -> None:
        """Load the model."""
        self._kind, self._run, self._store, self._where = kind, run, store, where
        self._attempts, self._tally, self._parts = attempts, ray.get_actor(tally), Parts(store)
        self._extract = extractor(kind, run, device())
        if torch := sys.modules.get("torch"):  # audio does without, and starts two seconds sooner
            torch.set_num_threads(max(1, int(getattr(run, kind).num_cpus)))
        self._probe = lru_cache(maxsize=8)(lambda key: load_probe(store, key))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do one clip and pass its row on with the outcome.

        Raises:
            OSError: the store is full, read-only or forbidden: every other clip's work would be for nothing too.
        """
        row = {name: values[0] for name, values in batch.items()}
        outcome, seconds = Outcome("ok", "", 0), 0.0
        if self._kind in row["missing"].split(","):
            start = time.monotonic()
            self._counted_s, self._length_s = 0.0, row["length_s"]
            outcome = self._do(row)
            seconds = time.monotonic() - start
            self._count(1.0)
        name = self._kind
        added: dict[str, Any] = {f"{name}_status": outcome.status, f"{name}_reason": outcome.reason}
        added |= {f"{name}_rows": outcome.rows, f"{name}_seconds": seconds}
        return {key: [value] for key, value in (row | added).items()}

    def _count(self, share: float) -> None:
        """Say how much of the clip is done."""
        done_s = share * self._length_s
        self._tally.add.remote(self._kind, done_s - self._counted_s, ray.get_runtime_context().get_node_id())
        self._counted_s = done_s

    def _do(self, row: dict[str, Any]) -> Outcome:
        try:
            probe: Probe = self._probe(row["probe_key"])
            prompts, number = tuple(row["prompts"].split(",")), row["number"]
            wanted = (self._kind, self._where[self._kind], prompts, probe.path, probe.fingerprint)
            key = unit_keys(*wanted, number + 1)[-1]
            if self._store.has(key):  # another job on the same store was faster, or it failed before
                known = State.of(self._store, key).outcome
                if known.status != "failed" or not row["again"]:
                    return known
            most_s = limit_s(getattr(self._run, self._kind), row["length_s"])
            before = self._attempts.begin(key)
            if before >= MAX_ATTEMPTS:
                extracted = self._failed(f"its process died {before} times, or was stopped after {most_s:g} s")
            else:
                clip = make_clip(row["uri"], prompts, probe, number, self._run)
                begun = self._parts.load(key, SCHEMAS[self._kind], attempted=before > 0)
                extracted = self._try(clip, begun, key, most_s)
            outcome = self._store.put(key, extracted, replace=row["again"] and extracted.status != "failed")
            self._attempts.end(key)
            self._parts.end(key)
            return outcome
        except Exception as error:  # the surroundings failed: the clip stays missing and its neighbours go on
            if isinstance(error, PermissionError) or getattr(error, "errno", None) in _CLOSED:
                raise
            traceback.print_exc()
            cause = error.__cause__ if isinstance(error, UnreadError) else error
            return Outcome("error", f"{type(cause).__name__}: {cause}", 0)

    def _try(self, clip: Clip, begun: Part | None, key: str, limit_s: float) -> Extracted:
        """Do a clip; a process that takes too long over it ends itself, whatever hangs, and says where it was."""
        kept_at = time.monotonic()

        def save(part: Part) -> None:
            nonlocal kept_at
            self._count(part.share)
            if time.monotonic() - kept_at >= KEEP_EVERY_S:
                self._parts.keep(key, part)
                kept_at = time.monotonic()

        faulthandler.dump_traceback_later(limit_s, exit=True)
        try:
            return self._extract(clip, begun, save)
        except MediaError as error:
            return self._failed(str(error))
        except OSError as error:  # is no word about the store
            raise UnreadError(str(error)) from error
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _failed(self, reason: str) -> Extracted:
        return Extracted(SCHEMAS[self._kind].empty_table(), "failed", reason)


def extract(
    run: Run,
    videos: Places,
    store: Store,
    *,
    tracks: list[str] | None = None,
    only: Collection[str] | None = None,
    retry_failed: bool = False,
    describe: bool = False,
) -> Summary:
    """Extract what is missing of every video.

    Args:
        run: the run.
        videos: where videos are.
        store: where features go.
        tracks: names of known tracks: their ``_left`` / ``_right`` decide what behaviour is asked.
        only: stems of the videos that are wanted; all of them if not given.
        retry_failed: whether videos and units that failed are done again.
        describe: whether behaviour is also described in words.

    Returns:
        What was done and what was not.

    Raises:
        ValueError: no video, weights that cannot be had, or pools that do not fit the cluster.
    """
    found = find(videos)
    for path in found.sound if only is None else ():
        say(f"{path}: sound alone, no video; left out")
    asked, where = wanted_features(run, found.videos, tracks or [], describe=describe)
    probed = probe_videos(found, store, asked, only=only, retry_failed=retry_failed)
    units, existing = missing_units(probed, run, where, store, retry_failed=retry_failed)
    summary = Summary(probed)
    for outcome in existing:
        summary.existing[outcome.status] += 1
        if outcome.reason:
            summary.reasons[outcome.reason] += 1
    for video in probed:
        if video.head is None:
            say(f"{video.uri}: {video.reason}; left out")
            summary.reasons[video.reason] += 1
    num_clips = sum(num_clips(video.head.last_s, run) for video in probed if video.head)
    if not units:
        say(f"extract: 0 of {num_clips} clips to do" + (f", everything is in {store.uri}" if num_clips else ""))
        return summary
    kinds = [kind for kind in where if any(kind in unit.missing for unit in units)]
    check_pools(run, kinds)
    _fetch_weights(run, kinds)
    lengths = [unit_seconds(probed[unit.video], unit, run) for unit in units]
    total = sum(lengths)
    say(f"extract: {len(units)} of {num_clips} clips to do, {total:.0f} s of video, {', '.join(kinds)}")
    attempts = Attempts.new(store)
    name = f"affect-tally-{uuid.uuid4().hex}"
    tally: Any = ray.remote(num_cpus=0, max_restarts=-1)(Tally).options(name=name).remote()
    parts: dict[str, float] = {
        kind: sum(length for unit, length in zip(units, lengths, strict=True) if kind in unit.missing) for kind in kinds
    }
    work = dict.fromkeys(kinds, 0.0)
    start = time.monotonic()
    try:
        with Meter("extract", total, "s of video", parts=parts, look=lambda: _ask(tally.read) or {}) as meter:
            stream = _stream(run, probed, units, kinds, store, where, attempts, name, retry_failed)
            for row in stream.iter_rows():
                for kind in kinds:
                    if kind in row["missing"].split(","):
                        _count(summary, row, kind)
                        work[kind] += row[f"{kind}_seconds"]
                failed = summary.done["failed"] + summary.done["error"]
                meter.advance(row["length_s"], f"{failed} failed" if failed else "")
        summary.num_nodes = _ask(tally.num_nodes) or 0
    finally:
        ray.kill(tally)
        with suppress(OSError):  # a store that is closed says so by itself
            attempts.close()
    busy = max(seconds / actors(getattr(run, kind), len(units)) for kind, seconds in work.items())
    for kind in kinds:
        speed.note(store.uri, kind, where[kind], parts[kind], work[kind], time.monotonic() - start - busy)
    missing_units(probed, run, where, store, retry_failed=False)  # notes how units ended, for the next command
    return summary


def _ask(method: Any) -> Any:  # noqa: ANN401 -- an actor's
    """What a tally answers; None while it does not."""
    try:
        return ray.get(method.remote(), timeout=LOOK_EVERY_S)
    except RayError:
        return None


def _count(summary: Summary, row: dict[str, Any], kind: Kind) -> None:
    status, reason = row[f"{kind}_status"], row[f"{kind}_reason"]
    summary.done[status] += 1
    if reason:
        summary.reasons[reason] += 1
    if status in ("failed", "error"):
        again = "; run the same command again to redo it" if status == "error" else ""
        say(f"{row['uri']} clip {row['number']} {kind}: {reason}{again}")


def _fetch_weights(run: Run, kinds: Collection[Kind]) -> None:
    """Fetch and check weights once on every node that actors may start on, before they do.

    Raises:
        WeightsError: they cannot be had or used; said here in one line, and not by every actor.
    """
    from affect.behavior.prompt import PROMPTS

    if "face" in kinds:
        weights.file(run.face.landmarker)
    shares = [share_of(kind, getattr(run, kind)) for kind in ("behavior", "description") if kind in kinds]
    places = [
        NodeAffinitySchedulingStrategy(node.id, soft=False)
        for node in nodes()
        if any(node.fits(share) for share in shares)
    ]
    check: Any = ray.remote(num_cpus=0, max_retries=0)(_check_weights)
    wanted = (run.behavior, list(PROMPTS.values()), run.description.max_tokens if "description" in kinds else 0)
    ray.get([check.options(scheduling_strategy=place).remote(*wanted) for place in places])


def _check_weights(settings: Behavior, prompts: list[str], max_written: int) -> None:
    from affect.behavior import checkpoint

    checkpoint.check(settings, prompts, max_written)


def _stream(
    run: Run,
    videos: list[Video],
    units: list[Unit],
    kinds: list[Kind],
    store: Store,
    where: dict[Kind, str],
    attempts: Attempts,
    tally: str,
    again: bool,
) -> ray.data.Dataset:
    """The graph itself: one row per clip, one actor pool per kind."""
    rows = [_row(videos[unit.video], unit, run) | {"again": again} for unit in units]
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_consecutive_actor_init_deaths = 3
    longest = max(row["length_s"] for row in rows)
    patience = max(limit_s(getattr(run, kind), longest) for kind in kinds)
    waiting = int(max(WAIT_FOR_NODES_S, 2 * MAX_ATTEMPTS * patience))  # a clip that hangs is given up before
    context.execution_no_progress_timeout_s = waiting
    stream: ray.data.Dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    for kind in kinds:
        pool = getattr(run, kind)
        given = (kind, run, store, where, attempts, tally)
        stream = on_actors(stream, Stage, given, pool, min(pool.min_actors, len(rows)), pool.max_actors)
    return stream


def _row(video: Video, unit: Unit, run: Run) -> dict[str, Any]:
    return {
        "uri": video.uri,
        "probe_key": video.probe_key,
        "number": unit.number,
        "prompts": ",".join(video.prompts),
        "missing": ",".join(unit.missing),
        "length_s": unit_seconds(video, unit, run),
    }
