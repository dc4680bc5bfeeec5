"""People of a video: tracklets joined into persons, and the person that a label's name means.

Tracklets are joined by appearance, wherever in the video they are. Everything runs on a whole video's faces, so no
state is carried between clips.

Differs: the paper assigns identities by hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray
from scipy.sparse import csr_matrix

from affect.face.similarity import Looks, similarity
from affect.face.tracklets import Faces, Tracklet, confident, iou, link, scenes
from affect.settings.extraction import Tracking

NEAR_BONUS = 0.15
"""Added to the similarity of two tracklets of one scene, times the overlap of the boxes where one ends and the other
begins."""


@dataclass(frozen=True)
class Person:
    """One person of a video.

    Args:
        rows: rows of :class:`Faces`, in order of time, at most one per frame.
        frame: every frame with the person, detected or bridged, increasing.
        box: box at each of those frames.
        bridged: true where no face was detected and the box is interpolated.
    """

    rows: Int[ndarray, " seen"]
    frame: Int[ndarray, " frames"]
    box: Float[ndarray, "frames 4"]
    bridged: Bool[ndarray, " frames"]


def persons(faces: Faces, settings: Tracking) -> list[Person]:
    """Groups the faces of a video by person.

    Args:
        faces: all faces of the video.
        settings: thresholds.

    Returns:
        Persons from left to right by mean position.
    """
    scene, sure = scenes(faces, settings), confident(faces, settings)
    joined = _join(link(faces, scene, sure, settings), faces, settings)
    kept = [rows for rows in joined if _is_person(rows, faces, sure, settings)]
    kept.sort(key=lambda rows: _middle(faces, rows))
    return [_bridge(rows, faces, scene, settings) for rows in kept]


def person_names(people: Sequence[Person]) -> list[str]:
    """Default names of a video's people, from left to right: main; left and right; or 1, 2, 3, ..."""
    known = {0: [], 1: ["main"], 2: ["left", "right"]}
    return known.get(len(people), [str(i + 1) for i in range(len(people))])


def person_named(people: Sequence[Person], faces: Faces, name: str) -> Person | None:
    """Finds the person that a label's name means.

    Args:
        people: from :func:`persons`.
        faces: all faces.
        name: ``left``, ``right``, ``main`` (largest area times presence) or a 1-based number from the left.

    Returns:
        The person, or None if the video has no such person. A single person is both the left and the right one.

    Raises:
        ValueError: the name is none of these.
    """
    if not people:
        return None
    visible = sorted(people, key=lambda person: -_visibility(faces, person.rows))
    if name == "main":
        return visible[0]
    if name.isdecimal():
        return people[int(name) - 1] if 1 <= int(name) <= len(people) else None
    if name not in ("left", "right"):
        raise ValueError(f"person {name!r} is none of main, left, right or a number")
    two = sorted(visible[:2], key=lambda person: _middle(faces, person.rows))
    return two[0] if name == "left" else two[-1]


def person_at(people: Sequence[Person], points: Sequence[tuple[int, float, float]]) -> Person | None:
    """Finds the person whose boxes hold most of the points.

    Args:
        people: from :func:`persons`.
        points: frame, and x and y as shares of the picture.

    Returns:
        The person, or None if no box holds a point.
    """
    hits = [0] * len(people)
    for frame, x, y in points:
        for i, person in enumerate(people):
            for left, top, right, bottom in person.box[person.frame == frame]:
                hits[i] += bool(left <= x <= right and top <= y <= bottom)
    return people[int(np.argmax(hits))] if any(hits) else None


def _join(tracklets: list[Tracklet], faces: Faces, settings: Tracking) -> list[Int[ndarray, " _"]]:
    """Merges tracklets that share no frame, the most similar pair first, until none reaches ``min_similarity``."""
    if not tracklets:
        return []
    rows = [np.array(t.rows) for t in tracklets]
    count = np.array([len(r) for r in rows])
    meshed = np.array([(~np.isnan(faces.shape[r]).any(axis=1)).sum() for r in rows])
    colors = np.stack([faces.colors[r].mean(axis=0, dtype=np.float64) for r in rows])
    shape = np.stack([_mean_shape(faces.shape[r], np.ones(len(r))) for r in rows])
    looks = Looks.of(colors, shape)
    concurrent, near = _share_a_frame(rows, faces), NEAR_BONUS * _meeting(tracklets, faces)
    table = np.where(concurrent, -np.inf, similarity(looks, looks) + near)
    every = np.arange(len(rows))
    best = table.argmax(axis=1)  # best partner of each row; searching the whole table in every round made this cubic
    while True:
        i = int(table[every, best].argmax())
        j = int(best[i])
        if table[i, j] < settings.min_similarity:
            return [r for r in rows if len(r)]
        both = [i, j]
        colors[i] = np.average(colors[both], axis=0, weights=count[both])
        shape[i] = _mean_shape(shape[both], meshed[both])
        rows[i], rows[j] = np.sort(np.concatenate([rows[i], rows[j]])), rows[j][:0]
        count[i], count[j] = count[both].sum(), 0
        meshed[i] = meshed[both].sum()
        for part, new in zip(looks, Looks.of(colors[i : i + 1], shape[i : i + 1]), strict=True):
            part[i] = new[0]
        for matrix in (concurrent, near):
            matrix[i] = matrix[:, i] = np.maximum(matrix[i], matrix[j])
        alike = similarity(looks.take([i]), looks)[0] + near[i]
        table[i] = table[:, i] = np.where(concurrent[i] | (count == 0), -np.inf, alike)
        table[j] = table[:, j] = -np.inf
        stale = np.isin(best, both) | (every == i)
        best[stale] = table[stale].argmax(axis=1)
        best = np.where(table[:, i] > table[every, best], i, best)


def _share_a_frame(rows: list[Int[ndarray, " _"]], faces: Faces) -> Bool[ndarray, "n n"]:
    """True for pairs of tracklets with a frame in common."""
    frame = np.concatenate([faces.frame[r] for r in rows])
    owner = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    table = csr_matrix((np.ones(len(frame), dtype=np.int32), (owner, frame)))
    return (table @ table.T).toarray() > 0


def _meeting(tracklets: list[Tracklet], faces: Faces) -> Float[ndarray, "n n"]:
    """IoU of the last box of one tracklet and the first box of a later one of the same scene; symmetric."""
    first, last = (faces.box[[t.rows[end] for t in tracklets]] for end in (0, -1))
    scene = np.array([t.scene for t in tracklets])
    begin, end = (faces.frame[[t.rows[i] for t in tracklets]] for i in (0, -1))
    follows = (end[:, None] < begin[None]) & (scene[:, None] == scene[None])
    overlap = np.where(follows, iou(last[:, None], first[None]), 0)
    return np.maximum(overlap, overlap.T)


def _mean_shape(shapes: Float[ndarray, "n S"], weights: Shaped[ndarray, " n"]) -> Float[ndarray, " S"]:
    """Weighted mean over the rows with a mesh; NaN if none has one."""
    seen = ~np.isnan(shapes).any(axis=1)
    if not seen.any():
        return np.full(shapes.shape[1], np.nan)
    return np.average(shapes[seen], axis=0, weights=weights[seen])


def _is_person(rows: Int[ndarray, " n"], faces: Faces, sure: Bool[ndarray, " faces"], settings: Tracking) -> bool:
    """True if seen often and long enough, with confident detections in half of the rows or more."""
    frames = np.flatnonzero(np.diff(faces.frame, prepend=-1))  # first row of each frame
    frame_s = float(np.median(np.diff(faces.time_s[frames]))) if len(frames) > 1 else np.inf
    share = len(rows) / len(frames)
    long_enough = len(rows) * frame_s >= settings.min_person_s or share > 0.5
    return bool(sure[rows].mean() >= 0.5 and share >= settings.min_presence and long_enough)


def _bridge(rows: Int[ndarray, " n"], faces: Faces, scenes_of: Int[ndarray, " faces"], settings: Tracking) -> Person:
    """Interpolates the boxes in gaps of up to ``max_gap_s`` within a scene."""
    frame, time_s, scene = faces.frame[rows], faces.time_s[rows], scenes_of[rows]
    short = (np.diff(time_s) <= settings.max_gap_s) & (np.diff(scene) == 0)
    missing = [np.arange(a + 1, b) for a, b, ok in zip(frame[:-1], frame[1:], short, strict=True) if ok]
    every = np.sort(np.concatenate([frame, *missing]))
    box = np.stack([np.interp(every, frame, faces.box[rows, side]) for side in range(4)], axis=1)
    return Person(rows, every, box, ~np.isin(every, frame))


def _middle(faces: Faces, rows: Int[ndarray, " n"]) -> float:
    return float((faces.box[rows, 0] + faces.box[rows, 2]).mean() / 2)


def _visibility(faces: Faces, rows: Int[ndarray, " n"]) -> float:
    """Sum of the box areas over all frames: mean area times presence."""
    return float((faces.box[rows, 2:] - faces.box[rows, :2]).prod(axis=1).sum())
