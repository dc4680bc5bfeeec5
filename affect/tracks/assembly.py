"""Builds a person's track from the features of a video: times, labels, segments and the parts of all modalities."""

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from affect import timeline
from affect.corpus.hints import Points
from affect.corpus.track import Segments, Track
from affect.face.tracks import Person, person_at, person_named
from affect.modalities import MODALITIES
from affect.modality import Evidence
from affect.plan.clips import Video
from affect.settings.run import Run
from affect.tracks.features import Features


def make_track(
    name: str,
    person: str,
    video: Video,
    features: Features,
    gold: Float[ndarray, "frames 2"] | None,
    run: Run,
    hints: Points = (),
) -> Track:
    """Track of one person.

    Args:
        name: name of the track.
        person: main, left, right or a number from the left.
        video: the video.
        features: extracted features of the video.
        gold: annotations, whose number of rows is the track's length; None for an unlabelled video of full length.
        run: the run.
        hints: points on the person's face, which override ``person``.

    Raises:
        ValueError: no person is at the hints.
    """
    probe = features.probe
    chosen = person_of(features, person, run, hints)
    if hints and chosen is None and "face" in run.extracted:
        raise ValueError(f"track {name}: its hints lie on nobody that is seen in {video.uri}")
    num = len(probe.time_s) if gold is None else len(gold)
    clock = timeline.Timestamps(probe.time_s)
    ranges_s = timeline.segments(clock.duration_s, run.grid.segment_s, run.grid.hop_s)
    ranges = timeline.frame_ranges(clock, ranges_s)
    segments = _segments(ranges_s, ranges, clock, num, run)
    everyone = [p.rows for p in features.persons]
    parts: dict[str, Any] = {}
    evidence = Evidence(
        tables=features.tables,
        person=person,
        rows=_rows(chosen),
        everyone=np.concatenate([*everyone, _rows(None)]),
        clock=clock,
        num_frames=num,
        segments=segments,
        ranges=ranges,
        run=run,
        parts=parts,
    )
    for modality in run.extracted:
        parts[modality] = MODALITIES[modality].part(evidence)
    ratings = {modality: MODALITIES[modality].ratings(evidence) for modality in run.rated}
    gold = np.full((num, 2), np.nan) if gold is None else gold
    return Track(name, video.stem, person, _extend(probe.time_s, num), gold, segments, parts, ratings)


def person_of(features: Features, person: str, run: Run, hints: Points = ()) -> Person | None:
    """Person with a name, or at the hints if faces are extracted; None if there is no such person."""
    if hints and "face" in run.extracted:
        return person_at(features.persons, hints)
    return person_named(features.persons, features.faces, person)


def face_boxes(features: Features, person: Person | None, num_frames: int) -> Float[ndarray, "frames 4"]:
    """Face box of a person per frame: left, top, right, bottom in [0, 1] of the frame's sides; NaN if not found."""
    boxes = np.full((num_frames, 4), np.nan)
    if person is not None:
        boxes[features.faces.frame[person.rows]] = features.faces.box[person.rows]
    return boxes


def _rows(person: Person | None) -> ndarray:
    return np.empty(0, dtype=np.int64) if person is None else person.rows


def _extend(time_s: Float[ndarray, " frames"], num: int) -> Float[ndarray, " num"]:
    """Times of ``num`` frames: cut, or extended at the mean frame rate for label rows past the video's end."""
    interval = 1 / timeline.Timestamps(time_s).fps
    more = time_s[-1] + interval * np.arange(1, max(0, num - len(time_s)) + 1)
    return np.concatenate([time_s, more])[:num]


def _segments(
    ranges_s: list[tuple[float, float]], ranges: ndarray, clock: timeline.Timestamps, num: int, run: Run
) -> Segments:
    """Segments of the track, cut at its end."""
    start_s, end_s = np.array(ranges_s).T
    edges = np.array([clock.block_edges(start, run.wavlm.blocks) for start in start_s])
    return Segments(
        start_s=start_s,
        end_s=end_s,
        ranges=np.minimum(ranges, num),
        full=np.isclose(end_s - start_s, run.grid.segment_s),
        block_edges=np.minimum(edges, num),
    )
