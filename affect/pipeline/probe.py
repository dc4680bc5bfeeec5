"""Probes new videos in parallel."""

from collections.abc import Collection, Mapping
from pathlib import PurePosixPath

from affect.corpus.videos import Found
from affect.pipeline import graph
from affect.plan.clips import MISNAMED, Video, key_of
from affect.storage.state import State, States
from affect.storage.store import Outcome, Store


def probe_videos(
    found: Found,
    store: Store,
    prompts: Mapping[str, tuple[str, ...]],
    *,
    only: Collection[str] | None = None,
    retry_failed: bool = False,
) -> list[Video]:
    """Probes, in parallel, the videos that have no stored probe.

    Args:
        found: the videos.
        store: store of the probes.
        prompts: people of the behaviour prompts by video; ``neutral`` for videos that it lacks.
        only: stems of the wanted videos; None for all.
        retry_failed: whether unusable videos are probed again.

    Returns:
        One entry per video, sorted by path; an unusable video has a reason and no probe.
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
        done = graph.probe(new, store)
        unread = {row["key"]: State(Outcome("failed", row["error"], 0), None) for row in done if row["error"]}
        known = states.of("videos", keys)
    states.save()
    videos = []
    for file, key in zip(chosen, keys, strict=True):
        state, people = unread.get(key) or known[key], prompts.get(file.stem, ("neutral",))
        videos.append(Video(file.stem, file.uri, file.path, file.bytes, key, state.head, state.outcome.reason, people))
    unnamed = found.misnamed if only is None else []
    return videos + [Video(PurePosixPath(uri).name, uri, uri, 0, "", None, MISNAMED) for uri in unnamed]
