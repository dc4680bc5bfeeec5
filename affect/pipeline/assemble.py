"""Writes the tables of labelled tracks, in parallel.

Runs that need the same part of a track share it (:mod:`affect.tracks.tables`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy import ndarray

from affect.corpus import affwild2
from affect.corpus.affwild2 import Split
from affect.corpus.hints import Points
from affect.pipeline.graph import each
from affect.plan.addresses import feature_addresses
from affect.plan.clips import Video, keys_of
from affect.progress import say
from affect.settings.address import address
from affect.settings.names import Modality
from affect.settings.run import Run
from affect.storage import schema
from affect.storage.extracted import Extracted
from affect.storage.state import States
from affect.storage.store import Store, slug
from affect.tracks.assembly import make_track
from affect.tracks.features import load_features
from affect.tracks.tables import BASE, Part, TrackRef, to_tables


def assemble(
    run: Run,
    videos: list[Video],
    labels: Mapping[Split, Mapping[str, ndarray]],
    store: Store,
    hints: Mapping[str, Points] | None = None,
) -> list[TrackRef]:
    """Write the tables of every labelled track that has none, in parallel.

    Args:
        run: the run, whose modalities' parts are written.
        videos: probed and extracted.
        labels: annotations by split and track.
        store: where features are and tables go.
        hints: points on the person that a track means, by track.

    Returns:
        The tracks that can be used; the others are said with their reason.

    Raises:
        ValueError: there is none.
    """
    where = feature_addresses(run)
    names = affwild2.track_names(labels)
    tell_unknown(hints or {}, names)
    stems = {video.stem for video in videos}  # a broken video is still whose name it is
    usable = {video.stem: video for video in videos if video.head}
    ended = _ended(usable, run, where, store)
    uneven = []
    present = store.keys("tracks") | store.keys("waveforms")
    refs: list[TrackRef] = []
    rows: list[dict[str, Any]] = []
    todo: dict[str, tuple[ndarray, dict[Part, str]]] = {}
    for split, tracks in labels.items():
        for name, gold in tracks.items():
            try:
                video = usable[affwild2.video_of(name, stems)]
                person = affwild2.person_of(name, video.stem, names, stems)
                assert video.head is not None
                if warning := affwild2.check_length(name, len(gold), video.head.num_frames, video.head.duration_s):
                    say(f"warning: {warning}")
                if video.stem not in ended:
                    raise FileNotFoundError(video.stem)
                keys = _keys(name, person, video, gold, run, ended[video.stem], list((hints or {}).get(name, ())))
            except (affwild2.LabelError, KeyError, FileNotFoundError) as error:
                say(f"left out: {_why(name, error)}")
                continue
            refs.append(TrackRef(name, split, video.stem, person, keys, video.head.content))
            uneven += [name] * (len(gold) != video.head.num_frames)
            if missing := {part: key for part, key in keys.items() if key not in present}:
                rows.append({"name": name, "person": person, "video": video.stem})
                todo[name] = (gold, missing)
    if uneven:
        say(
            f"assemble: {len(uneven)} tracks have not as many label rows as frames, as {uneven[0]}: surplus frames are "
            "cut, surplus rows take the last frame's evidence"
        )
    if unlabelled := len(usable.keys() - {ref.video for ref in refs}):
        say(f"assemble: {unlabelled} videos have no label and are left out")
    failed: dict[str, str] = {}
    if rows:
        say(f"assemble: {len(rows)} of {len(refs)} tracks to do")
        shared = {video.stem: video for video in usable.values() if video.stem in {row["video"] for row in rows}}
        work = partial(_assemble, videos=shared, todo=todo, hints=hints or {}, run=run, where=where, store=store)
        for row in each(rows, work, 0.5):
            if row["note"]:
                say(f"warning: {row['note']}")
            if row["reason"]:
                failed[row["name"]] = row["reason"]
    for name, reason in failed.items():
        say(f"left out: track {name}: {reason}")
    refs = [ref for ref in refs if ref.name not in failed]
    if not refs:
        raise ValueError("no labelled track can be used; do the labels belong to these videos?")
    return refs


def tell_unknown(hints: Mapping[str, Points], names: Sequence[str]) -> None:
    """Say which hints are for nobody."""
    if unknown := sorted(set(hints) - set(names)):
        say(f"hints: there is no track {', '.join(unknown)}")


def _ended(
    videos: Mapping[str, Video], run: Run, where: Mapping[Modality, str], store: Store
) -> dict[str, dict[Modality, list[tuple[str, str]]]]:
    """Keys of each video's clips and how they ended, by stem and modality; without videos of which a clip is missing.

    Nothing is read of clips whose end has been noted before.
    """
    states = States(store)
    ended: dict[str, dict[Modality, list[tuple[str, str]]]] = {stem: {} for stem in videos}
    for modality in where:
        keys = {stem: keys_of(video, run, where, modality) for stem, video in videos.items()}
        there = states.of(modality, [key for own in keys.values() for key in own])
        for stem, own in keys.items():
            if all(key in there for key in own):
                ended[stem][modality] = [(key, str(there[key].outcome)) for key in own]
    states.keep()
    return {stem: found for stem, found in ended.items() if len(found) == len(where)}


def _keys(
    name: str,
    person: str,
    video: Video,
    gold: ndarray,
    run: Run,
    found: Mapping[Modality, list[tuple[str, str]]],
    hints: list[tuple[int, float, float]],
) -> dict[Part, str]:
    """Keys of a track's parts, each from all that decides its numbers: how its video's clips ended, too."""
    mark = hashlib.sha256(np.ascontiguousarray(gold).tobytes()).hexdigest()
    assert video.head is not None
    base = address(schema.VERSION, name, video.head.fingerprint, run.grid, run.wavlm.blocks, mark)
    folder = f"tracks/{slug(name)}-{base}"
    keys: dict[Part, str] = {part: f"{folder}/{part}.arrow" for part in BASE}
    face = address(person, hints, run.tracking, found.get("face"))
    marks = {"face": face, "behavior": address(person, found.get("behavior"))}
    marks["audio"] = address(face, run.wavlm.speaking, found.get("audio"))
    keys |= {m: f"{folder}/{m}-{marks[m]}.arrow" for m in run.extracted}
    if "audio" in found:
        sound = address(schema.VERSION, video.head.fingerprint, run.grid, found["audio"])
        keys["waveforms"] = f"waveforms/{slug(video.stem)}-{sound}.rows.arrow"
    return keys


def _assemble(
    row: dict[str, Any],
    videos: Mapping[str, Video],
    todo: Mapping[str, tuple[ndarray, Mapping[Part, str]]],
    hints: Mapping[str, Points],
    run: Run,
    where: Mapping[Modality, str],
    store: Store,
) -> dict[str, Any]:
    name, video = row["name"], videos[row["video"]]
    gold, missing = todo[name]
    try:
        features = load_features(video, run, where, store)
        track = make_track(name, row["person"], video, features, gold, run, hints.get(name, ()))
    except (ValueError, FileNotFoundError) as error:
        return {"name": name, "reason": str(error), "note": ""}
    tables = to_tables(track)
    for part, key in missing.items():
        store.put(key, Extracted(tables[part]))
    note = ""
    if row["person"] == "main" and name not in hints and (num := len(features.persons)) > 1:
        note = (
            f"track {name}: its video shows {num} people, and the name does not say whom it means: the one who is seen "
            f"largest and longest is taken; call it {name}_left or {name}_right, or give --hints"
        )
    return {"name": name, "reason": "", "note": note}


def _why(name: str, error: Exception) -> str:
    match error:
        case KeyError():
            return f"track {name}: its video cannot be used"
        case FileNotFoundError():
            return f"track {name}: its video has not been extracted with these settings and labels; run jobs/extract.py"
    return str(error)
