"""Extraction: the clips that the store lacks, through one actor pool per kind of features.

    clips --> face actors --> behaviour actors --> audio actors          one Ray Data stream, all pools work at once
                 |                  |                    |
             face/<clip>       behavior/<clip>       audio/<clip>        Parquet, written by the actor

Descriptions in words are a fourth pool. The stream carries a small row per clip. Frames never enter the object store:
an actor decodes its clip's time range itself.
"""

import time
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.data import DataContext
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from affect.console.exits import EXIT_NOTHING, EXIT_OK, EXIT_PARTIAL
from affect.corpus.videos import WHOLE, Places, Shard, find, part_of
from affect.modalities import KINDS, stages_of
from affect.pipeline import graph
from affect.pipeline.cluster import WAIT_FOR_NODES_S, check_pools, nodes, pool_sizes, share_of
from affect.pipeline.extract_actor import Tally
from affect.pipeline.probe import probe_videos
from affect.pipeline.streams import MAX_ROWS
from affect.plan.addresses import wanted_features
from affect.plan.clips import Unit, Video, limit_s, missing_units, num_clips, unit_seconds
from affect.progress import POLL_EVERY_S, Meter, say
from affect.settings.run import Run
from affect.storage import speed
from affect.storage.attempts import MAX_ATTEMPTS, Attempts
from affect.storage.store import Store
from affect.weights import WeightsError


@dataclass
class Summary:
    """Results of an extraction.

    Args:
        videos: every video of the job.
        done: number of clips of this job by status; ``error`` is a failure outside the clip, which is not stored.
        existing: number of clips stored before, by status.
        nodes: IDs of the nodes that extracted.
        reasons: reasons of clips and videos that are not ``ok``, and notes, with their counts.
    """

    videos: list[Video]
    done: Counter[str] = field(default_factory=Counter)
    existing: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    nodes: set[str] = field(default_factory=set)

    @property
    def exit_code(self) -> int:
        """0: all fine, also without a video; 3: finished with failed clips or videos; 1: nothing usable."""
        both = self.done + self.existing
        if self.videos and not both["ok"] + both["degraded"]:
            return EXIT_NOTHING
        unusable = any(video.head is None for video in self.videos)
        return EXIT_PARTIAL if both["failed"] + both["error"] or unusable else EXIT_OK

    def show(self, store: str) -> None:
        """Prints how many clips ended how, and why, with the URI of their store."""
        counts = ", ".join(f"{n} {status}" for status, n in sorted((self.done + self.existing).items()))
        now = f"done now {self.done.total()}" + (f" on {len(self.nodes)} nodes" if len(self.nodes) > 1 else "")
        say(f"extract: {len(self.videos)} videos, units {counts or 'none'}, {now}: {store}")
        for reason, number in self.reasons.most_common():
            say(f"  {number} x {reason}")


def extract(
    run: Run,
    videos: Places,
    store: Store,
    *,
    tracks: list[str] | None = None,
    only: Collection[str] | None = None,
    retry_failed: bool = False,
    describe: bool = False,
    shard: Shard = WHOLE,
) -> Summary:
    """Extracts the missing clips of every video.

    Args:
        run: the run.
        videos: places of the videos.
        store: store of the features.
        tracks: names of known tracks; ``_left`` and ``_right`` in them name people for the behaviour prompts.
        only: stems of the wanted videos; None for all.
        retry_failed: whether failed videos and clips are extracted again.
        describe: whether behaviour is also described in words.
        shard: part of the videos.

    Raises:
        ValueError: there is no video, weights are not available, or the pools do not fit on the cluster.
    """
    listed = find(videos)
    prompts, where = wanted_features(run, listed.videos, tracks or [], describe=describe)
    found = part_of(listed, shard)
    if shard != WHOLE:
        say(f"extract: {len(found.videos)} of {len(listed.videos)} videos are of part {shard.number}/{shard.of}")
    for path in found.sound if only is None else ():
        say(f"{path}: sound alone, no video; left out")
    probed = probe_videos(found, store, prompts, only=only, retry_failed=retry_failed)
    units, existing = missing_units(probed, run, where, store, retry_failed=retry_failed)
    summary = Summary(probed)
    for (status, reason), number in existing.items():
        summary.existing[status] += number
        if reason:
            summary.reasons[reason] += number
    for video in probed:
        if video.head is None:
            say(f"{video.uri}: {video.reason}; left out")
            summary.reasons[video.reason] += 1
    total = sum(num_clips(video.head.last_s, run) for video in probed if video.head)
    if not units:
        say(f"extract: 0 of {total} clips to do" + (f", everything is in {store.uri}" if total else ""))
        return summary
    kinds = [kind for kind in where if any(kind in unit.missing for unit in units)]
    check_pools(run, kinds)
    _fetch_weights(run, kinds)
    length_s = sum(unit_seconds(probed[unit.video], unit, run) for unit in units)
    say(f"extract: {len(units)} of {total} clips to do, {length_s:.0f} s of video, {', '.join(kinds)}")
    _extract(run, units, kinds, where, store, summary, retry_failed)
    missing_units(probed, run, where, store, retry_failed=False)  # caches outcomes for the next command
    return summary


def _extract(
    run: Run,
    units: Sequence[Unit],
    kinds: Sequence[str],
    where: Mapping[str, str],
    store: Store,
    summary: Summary,
    again: bool,
) -> None:
    """Runs clips through the actors, counts their outcomes and records the speed of each kind."""
    rows = [clip_row(summary.videos[unit.video], unit, run) | {"again": again} for unit in units]
    lengths = {kind: sum(row["length_s"] for row in rows if kind in row["missing"].split(",")) for kind in kinds}
    work = dict.fromkeys(kinds, 0.0)
    _set_patience(run, rows, kinds)
    attempts, name, start = Attempts.new(store), f"affect-tally-{uuid.uuid4().hex}", time.monotonic()
    tally: Any = ray.remote(num_cpus=0, max_restarts=-1)(Tally).options(name=name).remote()
    total = sum(row["length_s"] for row in rows)
    try:
        with Meter("extract", total, "s of video", parts=lengths, poll=lambda: _done(tally)) as meter:
            for row in graph.extract(rows, kinds, run, (store, where, attempts, name)):
                for kind in kinds:
                    if kind in row["missing"].split(","):
                        _count(summary, row, kind)
                        work[kind] += row[f"{kind}_seconds"]
                        summary.nodes.add(row[f"{kind}_node"])
                failed = summary.done["failed"] + summary.done["error"]
                meter.advance(row["length_s"], f"{failed} failed" if failed else "")
    finally:
        ray.kill(tally)
        with suppress(OSError):  # an unwritable store has raised its own error
            attempts.close()
    sizes = pool_sizes(stages_of(run, kinds), len(units))
    busy = max(seconds / sizes[kind] for kind, seconds in work.items())
    for kind in kinds:
        speed.record(store.uri, kind, where[kind], lengths[kind], work[kind], time.monotonic() - start - busy)


def clip_row(video: Video, unit: Unit, run: Run) -> dict[str, Any]:
    """Row of a clip, as the actors take it."""
    return {
        "uri": video.uri,
        "probe_key": video.probe_key,
        "number": unit.number,
        "prompts": ",".join(video.prompts),
        "missing": ",".join(unit.missing),
        "length_s": unit_seconds(video, unit, run),
    }


def _set_patience(run: Run, rows: Sequence[dict[str, Any]], kinds: Sequence[str]) -> None:
    """Sets Ray Data's timeouts: longer than all attempts at a block of hanging clips, and than waits for new nodes."""
    longest = max(row["length_s"] for row in rows)
    patience = MAX_ROWS * max(limit_s(stage, longest) for stage in stages_of(run, kinds).values())
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_consecutive_actor_init_deaths = 3
    context.execution_no_progress_timeout_s = int(max(WAIT_FOR_NODES_S, 2 * MAX_ATTEMPTS * patience))


def _done(tally: Any) -> dict[str, float]:  # noqa: ANN401 -- an actor's handle
    """Finished seconds of video by kind of features; empty if the tally does not answer in time."""
    try:
        return ray.get(tally.read.remote(), timeout=POLL_EVERY_S)
    except RayError:
        return {}


def _count(summary: Summary, row: dict[str, Any], kind: str) -> None:
    """Counts a clip's outcome, and prints its failure."""
    status, reason = row[f"{kind}_status"], row[f"{kind}_reason"]
    summary.done[status] += 1
    if reason:
        summary.reasons[reason] += 1
    if status in ("failed", "error"):
        again = "; run the same command again to redo it" if status == "error" else ""
        say(f"{row['uri']} clip {row['number']} {kind}: {reason}{again}")


def _fetch_weights(run: Run, kinds: Collection[str]) -> None:
    """Downloads and checks weights once on every node that can start actors, before the actors start.

    Raises:
        WeightsError: weights are not available or not usable; one error here instead of one per actor.
    """
    missing = []
    for kind in kinds:
        try:
            KINDS[kind].fetch(run)
        except WeightsError as error:
            missing.append(str(error))
    if missing:
        raise WeightsError("; ".join(missing))
    present = nodes()
    check: Any = ray.remote(num_cpus=0, max_retries=0)(_check_weights)
    checks = [
        check.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(kind, run)
        for kind in kinds
        if KINDS[kind].checked_on_nodes(run)
        for node in present
        if node.fits(share_of(kind, KINDS[kind].stage(run)))
    ]
    ray.get(checks)


def _check_weights(kind: str, run: Run) -> None:
    """Checks the weights of a kind of features on this node."""
    KINDS[kind].check_weights(run)
