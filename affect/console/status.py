"""Status of a store for a folder of videos, from names and footers of objects; repeats one clip for debugging."""

import time
import traceback
from collections import Counter
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from affect.console.exits import EXIT_NOTHING, EXIT_OK, EXIT_PARTIAL
from affect.corpus import video
from affect.corpus.video import MediaError
from affect.corpus.videos import WHOLE, Places, Shard, as_list, find, part_of
from affect.device import default_device
from affect.modalities import KINDS
from affect.plan.addresses import DESCRIPTION, prompts_of, wanted_features
from affect.plan.clips import MISNAMED, Video, clip_states, key_of, make_clip, num_clips
from affect.progress import format_duration, say
from affect.settings.run import Run
from affect.storage.extracted import discard_part
from affect.storage.state import State, stored_states
from affect.storage.store import Outcome, Store

MAX_REASONS, MAX_NAMED = 12, 3
"""Maximum number of reasons printed, and of videos named for each."""
WATCH_EVERY_S = 30.0
"""Seconds between two looks; each lists the store."""


def status(
    run: Run,
    videos: Places,
    store: Store,
    tracks: list[str],
    *,
    describe: bool = False,
    shard: Shard = WHOLE,
    watch: bool = False,
) -> int:
    """Prints how many videos and clips are done, failed and missing; computes nothing.

    Args:
        run: the run.
        videos: folders, bucket prefixes or files of videos.
        store: the feature store.
        tracks: names of known tracks, which determine the person prompts.
        describe: whether text descriptions are included.
        shard: part of the videos.
        watch: whether to look again, every WATCH_EVERY_S seconds, until nothing is missing.

    Returns:
        0 if nothing is missing or failed, 3 if something failed, 1 if something is missing.
    """
    start, most, console = time.monotonic(), 0, Console(width=200)
    while True:
        counts, reasons = _look(run, videos, store, tracks, describe=describe, shard=shard, save=watch)
        if watch and console.is_terminal:
            console.clear()
        _print(console, counts, reasons, store)
        missing = sum(count["missing"] for count in counts.values())
        if not (watch and missing):
            break
        most, seconds = max(most, missing), time.monotonic() - start
        left = f", about {format_duration(seconds * missing / (most - missing))} left" if missing < most else ""
        say(f"{time.strftime('%H:%M:%S')}: {missing:,} missing{left}")
        time.sleep(WATCH_EVERY_S)
    if missing:
        return EXIT_NOTHING
    return EXIT_PARTIAL if any(count["failed"] for count in counts.values()) else EXIT_OK


def _look(
    run: Run, videos: Places, store: Store, tracks: list[str], *, describe: bool, shard: Shard, save: bool
) -> tuple[dict[str, Counter[str]], dict[str, list[str]]]:
    """Numbers of videos and of each kind's clips by status, and the stems of the videos of each reason.

    Its arguments are those of :func:`status`; ``save``: whether the cache of states is updated.
    """
    listed = find(videos)
    prompts, where = wanted_features(run, listed.videos, tracks, describe=describe)
    found = part_of(listed, shard)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in ("videos", *where)}
    reasons: dict[str, list[str]] = {}
    files = sorted(found.videos.values(), key=lambda file: file.stem)
    keys = [key_of(file) for file in files]
    probed = stored_states(store, "videos", [file.path for file in files], keys, save=save)
    for path in found.misnamed:
        _count(State(Outcome("failed", MISNAMED, 0), None), counts["videos"], reasons, "", path)
    known = []
    for file, key, state in zip(files, keys, probed, strict=True):
        _count(state, counts["videos"], reasons, "", file.stem)
        head, people = state.head if state else None, prompts[file.stem]
        known.append(Video(file.stem, file.uri, file.path, file.bytes, key, head, "", people))
    for kind, index, clips, states in clip_states(known, run, where, store, save=save):
        for clip in clips:
            _count(states.get(clip), counts[kind], reasons, f"{kind}: ", known[index].stem)
    return counts, reasons


def _count(state: State | None, count: Counter[str], reasons: dict[str, list[str]], kind: str, stem: str) -> None:
    count[state.outcome.status if state else "missing"] += 1
    if state and state.outcome.reason:
        reasons.setdefault(f"{kind}{state.outcome.reason}", []).append(stem)


def _print(
    console: Console, counts: Mapping[str, Counter[str]], reasons: Mapping[str, list[str]], store: Store
) -> None:
    table = Table("", "ok", "degraded", "failed", "missing")
    for kind, count in counts.items():
        table.add_row(kind, *(f"{count[name]:,}" for name in ("ok", "degraded", "failed", "missing")))
    console.print(f"{escape(store.uri)}: videos, and clips of each modality")
    console.print(table)
    for reason, stems in sorted(reasons.items(), key=lambda item: -len(item[1]))[:MAX_REASONS]:
        named = ", ".join(sorted(set(stems))[:MAX_NAMED])
        console.print(escape(f"  {len(stems):,} x {reason} ({named}{', ...' if len(set(stems)) > MAX_NAMED else ''})"))
    if len(reasons) > MAX_REASONS:
        console.print(f"  and {len(reasons) - MAX_REASONS} other reasons")


def replay(run: Run, videos: Places, wanted: str, tracks: list[str], *, describe: bool = False) -> int:
    """Extracts one clip, or all clips of one video, in this process with full tracebacks; writes nothing.

    Args:
        run: the run.
        videos: folders, bucket prefixes or files of videos.
        wanted: ``VIDEO`` or ``VIDEO:CLIP``, the video by its name without suffix, the clip by its number from 0.
        tracks: names of known tracks.
        describe: whether text descriptions are included.

    Returns:
        0 if all clips can be extracted, 3 if not.

    Raises:
        ValueError: there is no such video or clip.
    """
    names = find(videos).videos
    stem, _, number = (wanted, "", "") if wanted in names else wanted.rpartition(":")
    if stem not in names or (number and not number.isdecimal()):
        raise ValueError(
            f"--only {wanted}: no such video in {' '.join(as_list(videos))}; give VIDEO or VIDEO:CLIP, without a suffix"
        )
    uri = names[stem].uri
    try:
        probe = video.probe(uri, names[stem].path)
    except (MediaError, OSError):
        traceback.print_exc()
        return EXIT_PARTIAL
    say(f"{uri}: {probe.width} x {probe.height}, {len(probe.time_s)} frames in {probe.clock.duration_s:.2f} s")
    prompts = prompts_of(names, tracks, run.behavior.ask)[stem]
    total = num_clips(float(probe.time_s[-1]), run)
    if number and int(number) >= total:
        raise ValueError(f"--only {wanted}: {stem} has clips 0 to {total - 1}")
    code = EXIT_OK
    kinds: list[str] = [*run.extracted, *([DESCRIPTION] if describe else [])]
    for kind in kinds:
        extractor = KINDS[kind].extractor(run, default_device() if KINDS[kind].stage(run).num_gpus else "cpu")
        for clip in [int(number)] if number else range(total):
            start = time.monotonic()
            try:
                done = extractor(make_clip(uri, prompts, probe, clip, run), None, discard_part)
            except MediaError:
                traceback.print_exc()
                code = EXIT_PARTIAL
                continue
            seconds, reason = time.monotonic() - start, f": {done.reason}" if done.reason else ""
            say(f"{stem} clip {clip} {kind}: {done.status}, {done.table.num_rows} rows in {seconds:.1f} s{reason}")
            code = EXIT_PARTIAL if done.status == "failed" else code
    return code
