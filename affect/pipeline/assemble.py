"""From features of clips to tables per person: who is who, whose voice it is, which label belongs to which frame.

Runs that need the same part of a track share it (:mod:`affect.pipeline.tracks`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from numpy import ndarray

from affect import schema, timeline
from affect.audio.speaking import unheard, verdicts, with_sound
from affect.config import Modality, Run, address
from affect.corpus import affwild2
from affect.corpus.affwild2 import Split
from affect.corpus.clip import Extracted
from affect.corpus.hints import Points
from affect.corpus.track import Patches, Segments, Track
from affect.face.tracks import Person, at, choose
from affect.pipeline import plan
from affect.pipeline.columns import array, matrix
from affect.pipeline.features import Features, load_features, waveforms_of
from affect.pipeline.graph import each
from affect.pipeline.plan import Video
from affect.pipeline.progress import say
from affect.pipeline.state import States
from affect.pipeline.store import Store, slug
from affect.pipeline.tracks import BASE, Part, TrackRef, to_tables


def make_track(
    name: str,
    person: str,
    video: Video,
    features: Features,
    gold: Float[ndarray, "frames 2"] | None,
    run: Run,
    hints: Points = (),
) -> Track:
    """Arrays of one person.

    Args:
        name: of the track.
        person: whom to choose.
        video: the video.
        features: what was extracted of it.
        gold: annotations; its length is the track's. None for a new video, whose own length it then has.
        run: the run.
        hints: points that lie on the person, which then override ``person``.

    Raises:
        ValueError: the hints lie on nobody.
    """
    probe = features.probe
    chosen = person_of(features, person, run, hints)
    if hints and chosen is None and "face" in run.extracted:
        raise ValueError(f"track {name}: its hints lie on nobody that is seen in {video.uri}")
    num = len(probe.time_s) if gold is None else len(gold)
    time_s = _extend(probe.time_s, num)
    face = _face(features, chosen, num)
    clock = timeline.Timestamps(probe.time_s)
    segments = _segments(features, person, clock, num, face["lip_area"], run)
    if gold is None:
        gold = np.full((num, 2), np.nan)
    return Track(name=name, video=video.stem, person=person, time_s=time_s, gold=gold, segments=segments, **face)


def person_of(features: Features, person: str, run: Run, hints: Points = ()) -> Person | None:
    """Whom a name means, or hints where faces are extracted; None if nobody is there."""
    if hints and "face" in run.extracted:
        return at(features.persons, hints)
    return choose(features.persons, features.faces, person)


def face_boxes(features: Features, person: Person | None, num_frames: int) -> Float[ndarray, "frames 4"]:
    """Left, top, right and bottom of a person's face as :data:`affect.schema.FACE` has them, NaN where not found."""
    boxes = np.full((num_frames, 4), np.nan)
    if person is not None:
        boxes[features.faces.frame[person.rows]] = features.faces.box[person.rows]
    return boxes


def _extend(time_s: Float[ndarray, " frames"], num: int) -> Float[ndarray, " num"]:
    """Cut surplus frames off, or go on at the mean rate for label rows past the video's end."""
    interval = 1 / timeline.Timestamps(time_s).fps
    more = time_s[-1] + interval * np.arange(1, max(0, num - len(time_s)) + 1)
    return np.concatenate([time_s, more])[:num]


def _face(features: Features, person: Person | None, num: int) -> dict[str, Any]:
    """The face's part of a track, of as many frames as it has; a frame without a face takes the nearest one's."""
    valid, lip_area = np.zeros(num, dtype=bool), np.full(num, np.nan)
    embedding = np.zeros((num, matrix(features.face_table["embedding"]).shape[1]))
    if person is not None:
        rows = person.rows[features.faces.frame[person.rows] < num]
        table, frames = features.face_table.take(rows), features.faces.frame[rows]
        valid[frames] = True
        lip_area[frames] = array(table["lip_area"])
        if len(rows):
            nearest = np.searchsorted(frames, timeline.nearest_valid(valid))
            embedding = matrix(table["embedding"])[nearest]
    return {"face_valid": valid, "face_embedding": embedding, "lip_area": lip_area}


def _segments(
    features: Features, person: str, clock: timeline.Timestamps, num: int, lip_area: Float[ndarray, " num"], run: Run
) -> Segments:
    ranges_s = timeline.segments(clock.duration_s, run.grid.segment_s, run.grid.hop_s)
    start_s, end_s = np.array(ranges_s).T
    whole = timeline.frame_ranges(clock, ranges_s)
    ranges = np.minimum(whole, num)
    edges = np.array([clock.block_edges(start, run.wavlm.blocks) for start in start_s])
    waveforms = waveforms_of(features.audio, len(ranges))
    silent = [unheard(wave, run.wavlm.speaking) for wave in waveforms]
    judged = verdicts(lip_area, clock.fps, ranges, run.wavlm.speaking, everyone=features.lip_areas)
    judged = [with_sound(*pair) for pair in zip(judged, silent, strict=True)]
    prompts = features.behavior["prompt"].to_pylist()
    prompt = person if person in prompts else "neutral"
    behavior = features.behavior.filter(pa.array([p == prompt for p in prompts], type=pa.bool_()))
    behavior_valid, multimodal, vision = _states(behavior, len(ranges))
    patches = _patches(behavior, clock.time_s, whole, num)
    return Segments(
        start_s=start_s,
        end_s=end_s,
        ranges=ranges,
        full=np.isclose(end_s - start_s, run.grid.segment_s),
        block_edges=np.minimum(edges, num),
        behavior_valid=behavior_valid,
        multimodal=multimodal,
        vision=vision,
        patches=patches,
        audio_valid=np.array([not why for why in silent]),
        kept=np.array([verdict.kept for verdict in judged]),
        verdict=[verdict.reason for verdict in judged],
        waveforms=waveforms,
    )


def _states(behavior: pa.Table, num: int) -> tuple[ndarray, ndarray, ndarray]:
    index = array(behavior["segment"])
    valid = np.zeros(num, dtype=bool)
    valid[index] = True
    states = []
    for name in ("multimodal", "vision"):
        values = matrix(behavior[name])
        full = np.zeros((num, values.shape[1]), dtype=np.float32)
        full[index] = values
        states.append(full)
    return valid, states[0], states[1]


def _patches(
    behavior: pa.Table, time_s: Float[ndarray, " frames"], ranges: Int[ndarray, "segments 2"], num: int
) -> Patches:
    """States of half seconds, with the frames of the track that each stands for."""
    states, frames, owner = [], [], []
    columns = (behavior[name] for name in ("segment", "patches", "shown_s"))
    for segment, values, shown_s in zip(*columns, strict=True):
        number = segment.as_py()
        own = timeline.patch_ranges(time_s, shown_s.values.to_numpy(), *ranges[number].tolist())
        states.append(values.values.flatten().to_numpy().reshape(len(own), -1))
        frames.append(own)
        owner.append(np.full(len(own), number))
    if not states:
        return Patches.none()
    return Patches(np.concatenate(states), np.minimum(np.concatenate(frames), num), np.concatenate(owner))


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
    where = plan.addresses(run)
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
        keys = {stem: plan.keys_of(video, run, where, modality) for stem, video in videos.items()}
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
