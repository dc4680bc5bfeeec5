"""New videos to valence and arousal of every frame and person.

OUT/run.json        the models, and the training mean, which stands for people without any evidence
"""

import dataclasses
import json
import platform
import time
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from typing import Any, get_args

import pyarrow as pa
import pyarrow.csv

from affect.console.exits import EXIT_NOTHING, EXIT_OK, EXIT_PARTIAL
from affect.corpus import affwild2
from affect.corpus.hints import Points
from affect.corpus.videos import Places, Shard, find, part_of
from affect.evaluation.submission import read_template, tracks_of
from affect.pipeline import graph
from affect.pipeline.cluster import actors
from affect.pipeline.streams import MODEL_BYTES
from affect.plan.addresses import feature_addresses
from affect.plan.clips import Video
from affect.progress import Meter, say
from affect.settings.address import address
from affect.settings.names import People
from affect.settings.run import Run
from affect.storage import files, schema, speed
from affect.storage.store import Store, encode_csv
from affect.tracks.refs import warn_unknown
from affect.trained.models import Model, without_people
from affect.trained.predictions import SUMMARY, earlier_outcomes


def predict(
    run: Run,
    videos: Sequence[Video],
    models: dict[str, Model],
    store: Store,
    out: str,
    *,
    whom: People | list[str] = "all",
    hints: Mapping[str, Points] | None = None,
    summary: bool = True,
) -> list[dict[str, Any]]:
    """Predicts extracted videos, prints failures; those with a table of the same inputs are skipped.

    Args:
        run: the run.
        videos: probed and extracted.
        models: from :func:`affect.trained.models.load_models`.
        store: store of the features.
        out: folder of the tables.
        whom: people to predict, or names of the tracks of a template to predict.
        hints: points on the person that a track means, by track.
        summary: whether ``videos.csv``, which also has earlier rows of other videos by the same models, and
            ``run.json`` are written; parts of a prediction leave them to the whole.

    Returns:
        One row per video, sorted by name.

    Raises:
        ValueError: the people are unknown, a track has no video, or an actor has no room on the cluster.
    """
    by_stem = {video.stem: video for video in videos}
    people, wanted = (whom, None) if isinstance(whom, str) else ("all", _tracks_of(whom, by_stem, hints or {}))
    check_people(people)
    todo = [
        {
            "video": video,
            "tracks": json.dumps(wanted and wanted[stem]),
            "unit": stem,
            "length_s": video.head.duration_s if video.head else 0.0,
        }
        for stem, video in by_stem.items()
    ]
    small = {system: without_people(model) for system, model in models.items()}
    given = (feature_addresses(run), small, store, files.absolute(out), people, hints or {})
    mark = address({system: model.address for system, model in models.items()})
    rows = _run_actors(run, todo, given, mark, store) if todo else []
    for row in rows:
        if row["reason"]:
            say(f"{row['video']}: {row['status']}, {row['people']} people, {row['reason']}")
    if summary:
        _summarise(run, rows, models, store, out)
    return rows


def check_people(people: str) -> None:
    """Checks whom to predict, for callers from outside, whose types nobody checks.

    Raises:
        ValueError: the people are unknown.
    """
    if people not in get_args(People):
        raise ValueError(f"people {people!r} are none of {', '.join(get_args(People))}")


def tracks_in(
    template: str | None, people: People, videos: Places, shard: Shard
) -> tuple[list[str] | None, set[str] | None]:
    """Tracks of a template whose videos belong to a part, and the stems of these videos; None without a template.

    Raises:
        ValueError: the template is none, people are chosen as well, there is no video, or a track has none.
    """
    if template is None:
        return None, None
    if people != "all":
        raise ValueError(f"--people {people} and --template both say whom to predict; give one of them")
    found = find(videos)
    part = part_of(found, shard).videos
    tracks = tracks_of(read_template(files.read_text(template), template))
    shows = {track: stem for track in tracks if (stem := affwild2.video_of(track, found.videos)) in part}
    return list(shows), set(shows.values())


def exit_code(outcomes: Sequence[Mapping[str, Any]], extracted: int) -> int:
    """Exit code of a prediction, given that of its extraction.

    Returns:
        0: all fine, also without a video; 3: finished with failed videos or clips; 1: every video failed.
    """
    failed = [row["status"] == "failed" for row in outcomes]
    if failed and all(failed):
        return EXIT_NOTHING
    return EXIT_PARTIAL if any(failed) or extracted != EXIT_OK else EXIT_OK


def export(videos: Sequence[Video], outcomes: Sequence[Mapping[str, Any]], out: str) -> int:
    """Writes ``OUT/<video>.eaf`` for every predicted video; returns their number."""
    uris = {video.stem: video.uri for video in videos}
    rows = [{"video": row["video"], "uri": uris[row["video"]]} for row in outcomes if row["status"] != "failed"]
    return len(list(graph.exports(rows, files.absolute(out)))) if rows else 0


def _run_actors(
    run: Run, todo: Sequence[dict[str, Any]], given: tuple[Any, ...], mark: str, store: Store
) -> list[dict[str, Any]]:
    """Predicts videos and records the speed under an address of the models; returns one row per video, sorted."""
    rows: list[dict[str, Any]] = []
    start = time.monotonic()
    with Meter("predict", float(len(todo)), "videos") as meter:
        for row in graph.predict(todo, run, given, store):
            rows.append(row)
            meter.advance(1.0)
    length, work_s = (sum(row.pop(name) for row in rows) for name in ("new_s", "took_s"))
    start_s = max(0.0, time.monotonic() - start - work_s / actors(run.inference, len(todo), MODEL_BYTES))
    speed.record(store.uri, "predict", mark, length, work_s, start_s)
    return sorted(rows, key=lambda row: row["video"])


def _summarise(run: Run, rows: Sequence[dict[str, Any]], models: Mapping[str, Model], store: Store, out: str) -> None:
    """Writes ``videos.csv`` and ``run.json``."""
    addresses, stems = {system: model.address for system, model in models.items()}, {row["video"] for row in rows}
    others = [row for row in earlier_outcomes(out, addresses) if row["video"] not in stems]
    everything = sorted([*others, *rows], key=lambda row: row["video"])
    table = encode_csv(pa.Table.from_pylist(everything, schema=schema.OUTCOMES))
    files.write(files.join(out, f"{SUMMARY}.csv"), table)
    note = {
        "recipe": run.name,
        "models": addresses,
        "modalities": {system: model.modalities for system, model in models.items()},
        "training_mean": models[run.systems[-1]].training_mean,
        "made_with": _made_with(models, store),
        "settings": dataclasses.asdict(run),
    }
    files.write(files.join(out, "run.json"), json.dumps(note, indent=1).encode())


def _tracks_of(
    tracks: Sequence[str], stems: Collection[str], hints: Mapping[str, Points]
) -> dict[str, list[tuple[str, str]]]:
    """Name and person of each track of a template, by the stem of its video; warns of hints on other tracks."""
    warn_unknown(hints, tracks)
    found: dict[str, list[tuple[str, str]]] = {stem: [] for stem in stems}
    for track in tracks:
        stem = affwild2.video_of(track, stems)
        found[stem].append((track, affwild2.person_of(track, stem, tracks, stems)))
    return found


def _made_with(models: Mapping[str, Model], store: Store) -> dict[str, str]:
    """Versions, models, features and their speed of extraction, for the report."""
    facts = {"python": platform.python_version()}
    facts |= {name: metadata.version(name) for name in ("affect", "torch", "transformers", "ray", "mediapipe", "av")}
    facts |= {f"{system} model": model.uri or "untrained" for system, model in models.items()}
    features = {m: mark for model in models.values() for m, mark in model.features.items()}
    facts |= {f"{m} features": f"{store.uri}/{m}/{mark}" for m, mark in features.items()}
    for m, mark in features.items():
        if known := speed.read(store.uri, m, mark):
            facts[f"{m} extraction"] = f"{known.work_s / known.amount:.2f} s of an actor per second of video"
    return facts
