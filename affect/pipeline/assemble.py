"""Writes the tables of labelled tracks in parallel.

Runs that need the same part of a track share it (:mod:`affect.tracks.tables`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from affect.corpus.hints import Points
from affect.corpus.labels import FrameLabels
from affect.pipeline import graph
from affect.plan.addresses import feature_addresses
from affect.plan.clips import Video
from affect.progress import say
from affect.settings.run import Run
from affect.storage.store import Store
from affect.tracks.refs import find_tracks
from affect.tracks.tables import TrackRef


def assemble(
    run: Run,
    videos: Sequence[Video],
    labels: FrameLabels,
    store: Store,
    hints: Mapping[str, Points] | None = None,
    persons: Mapping[str, str] | None = None,
) -> list[TrackRef]:
    """Writes the missing tables of labelled tracks in parallel.

    Args:
        run: the run; the parts of its modalities are written.
        videos: probed and extracted.
        labels: annotations by split and track.
        store: store of features and tables.
        hints: points on the person that a track means, by track.
        persons: whom tracks show, where the labels say it.

    Returns:
        The usable tracks; the others are printed with their reasons.

    Raises:
        ValueError: no track is usable.
    """
    hints, where = hints or {}, feature_addresses(run)
    tracks = find_tracks(run, videos, where, labels, store, hints, persons or {})
    folders = {key.partition("/")[0] for track in tracks for key in track.ref.keys.values()}
    present = {key for folder in folders for key in store.keys(folder)}
    rows, todo = [], {}
    for ref, gold in tracks:
        if missing := {table: key for table, key in ref.keys.items() if key not in present}:
            rows.append({"name": ref.name, "person": ref.person, "video": ref.video})
            todo[ref.name] = gold, missing
    failed: dict[str, str] = {}
    if rows:
        say(f"assemble: {len(rows)} of {len(tracks)} tracks to do")
        stems = {row["video"] for row in rows}
        given: dict[str, Any] = dict(
            videos={video.stem: video for video in videos if video.head and video.stem in stems},
            todo=todo,
            hints=hints,
            run=run,
            where=where,
            store=store,
        )
        for row in graph.assemble(rows, given):
            if row["note"]:
                say(f"warning: {row['note']}")
            if row["reason"]:
                failed[row["name"]] = row["reason"]
    for name, reason in failed.items():
        say(f"left out: track {name}: {reason}")
    refs = [track.ref for track in tracks if track.ref.name not in failed]
    if not refs:
        raise ValueError("no labelled track can be used; do the labels belong to these videos?")
    return refs
