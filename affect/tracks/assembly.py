"""A person's track from the features of a video: who is who, whose voice, which label is of which frame."""

from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from numpy import ndarray

from affect import timeline
from affect.audio.speaking import unheard, verdicts, with_sound
from affect.corpus.hints import Points
from affect.corpus.track import Patches, Segments, Track
from affect.face.tracks import Person, at, choose
from affect.plan.clips import Video
from affect.settings.run import Run
from affect.storage.columns import array, matrix
from affect.tracks.features import Features, waveforms_of


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
    """Left, top, right and bottom of a person's face as shares of the picture's sides, NaN where not found."""
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
