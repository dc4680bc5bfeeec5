"""Probes new videos in parallel."""

from collections.abc import Collection, Mapping
from pathlib import PurePosixPath

from affect.corpus.videos import Found
from affect.pipeline import graph
from affect.plan.clips import MISNAMED, Video, key_of
from affect.storage.state import State, stored_states
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
    keys = [key_of(file) for file in chosen]
    states = stored_states(store, "videos", [file.path for file in chosen], keys)
    new = [i for i, state in enumerate(states) if not state or (retry_failed and state.outcome.status == "failed")]
    if new:
        rows = [{"path": chosen[i].path, "uri": chosen[i].uri, "key": keys[i]} for i in new]
        unread = {row["key"]: row["error"] for row in graph.probe(rows, store) if row["error"]}
        probed = stored_states(store, "videos", [chosen[i].path for i in new], [keys[i] for i in new])
        for i, state in zip(new, probed, strict=True):
            error = unread.get(keys[i])
            states[i] = State(Outcome("failed", error, 0), None) if error else state
    videos = []
    for file, key, state in zip(chosen, keys, states, strict=True):
        assert state, f"{file.uri} was probed"
        people = prompts.get(file.stem, ("neutral",))
        videos.append(Video(file.stem, file.uri, file.path, file.bytes, key, state.head, state.outcome.reason, people))
    unnamed = found.misnamed if only is None else []
    return videos + [Video(PurePosixPath(uri).name, uri, uri, 0, "", None, MISNAMED) for uri in unnamed]
