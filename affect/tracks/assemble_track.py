"""Writes the tables of one labelled track."""

from collections.abc import Mapping
from typing import Any

from numpy import ndarray

from affect.corpus.hints import Points
from affect.plan.clips import Video
from affect.settings.run import Run
from affect.storage.extracted import Extracted
from affect.storage.store import Store
from affect.tracks.assembly import make_track
from affect.tracks.features import load_features
from affect.tracks.tables import to_tables


def assemble_track(
    row: dict[str, Any],
    videos: Mapping[str, Video],
    todo: Mapping[str, tuple[ndarray, Mapping[str, str]]],
    hints: Mapping[str, Points],
    run: Run,
    where: Mapping[str, str],
    store: Store,
) -> dict[str, Any]:
    """Writes the missing tables of one track; returns the reason for a failure, and a warning."""
    name, video = row["name"], videos[row["video"]]
    gold, missing = todo[name]
    try:
        features = load_features(video, run, where, store)
        track = make_track(name, row["person"], video, features, gold, run, hints.get(name, ()))
    except (ValueError, FileNotFoundError) as error:
        return {"name": name, "reason": str(error), "note": ""}
    tables = to_tables(track)
    for table, key in missing.items():
        store.put(key, Extracted(tables[table]))
    note = ""
    if row["person"] == "main" and name not in hints and (num := len(features.persons)) > 1:
        note = (
            f"track {name}: its video shows {num} people, and the name does not say whom it means: the one who is seen "
            f"largest and longest is taken; call it {name}_left or {name}_right, or give --hints"
        )
    return {"name": name, "reason": "", "note": note}
