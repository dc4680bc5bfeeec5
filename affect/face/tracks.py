"""Who is who: faces of single frames become persons of a whole video, and a label's name picks one.

Faces are linked from frame to frame by place and looks into tracklets; a scene cut ends them all. Tracklets are then
joined into persons by looks, wherever in the video they are. Everything works on a whole video's boxes, so no state
crosses clips. Looks are the colours of face and shoulders and the proportions of the mesh: GRADA's embedding tells
expressions apart, not people.

Differs: in the paper identities were assigned by hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from numpy import ndarray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix

from affect.settings.extraction import Tracking

WEIGHTS = (0.5, 0.25, 0.25)
"""Share of the face's colours, of the shoulders' colours and of the mesh's proportions in a similarity."""
SHAPE_SCALE = 0.15
"""Distance of proportions that speaks for two people: one person's differ by .05, two people's by .2 and more."""
NEAR_BONUS = 0.15
"""What is added to the similarity of two tracklets of one scene that end and begin at the same place."""
MEMORY = 0.9
"""Share of a tracklet's motion that stays when a face is added."""
CROWDED_IOU = 0.05
"""A face that overlaps another one more than this does not tell what a person looks like: it may show the other."""


@dataclass(frozen=True)
class Faces:
    """Every face of a video, one row each, sorted by frame.

    Args:
        frame: 0-based, non-decreasing.
        time_s: presentation time.
        box: left, top, right, bottom as shares of the picture.
        score: the detector's confidence.
        colors: of face and shoulders, from :mod:`affect.face.appearance`.
        shape: proportions of the mesh, NaN without one.
        thumbnail: the whole picture's.
    """

    frame: Int[ndarray, " faces"]
    time_s: Float[ndarray, " faces"]
    box: Float[ndarray, "faces 4"]
    score: Float[ndarray, " faces"]
    colors: Float[ndarray, "faces C"]
    shape: Float[ndarray, "faces S"]
    thumbnail: UInt8[ndarray, "faces P"]


@dataclass(frozen=True)
class Person:
    """One person of a video.

    Args:
        rows: their faces, in order of time, no frame twice.
        frame: every frame they are in, seen or bridged, increasing.
        box: where, at those frames.
        bridged: frames at which they were not found and the box is interpolated.
    """

    rows: Int[ndarray, " seen"]
    frame: Int[ndarray, " frames"]
    box: Float[ndarray, "frames 4"]
    bridged: Bool[ndarray, " frames"]


class _Looks(NamedTuple):
    """What n faces or tracklets look like: colours as vectors of length 1, or 0 where not seen, and proportions."""

    face: Float[ndarray, "n C"]
    shoulders: Float[ndarray, "n C"]
    shape: Float[ndarray, "n S"]
    seen: Float[ndarray, "n 3"]
    """1 where face, shoulders and mesh are known, else 0."""

    @classmethod
    def of(cls, colors: Float[ndarray, "n C"], shape: Float[ndarray, "n S"]) -> "_Looks":
        half = colors.shape[1] // 2
        parts = [part.astype(np.float32) for part in (colors[:, :half], colors[:, half:])]  # most of a video's memory
        lengths = [np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
        meshed = ~np.isnan(shape).any(axis=1, keepdims=True)
        seen = np.concatenate([*(length > 0 for length in lengths), meshed], axis=1).astype(np.float64)
        face, shoulders = (part / np.maximum(length, 1e-12) for part, length in zip(parts, lengths, strict=True))
        return cls(face, shoulders, np.where(meshed, shape, 0.0), seen)

    def take(self, rows: Int[ndarray, " m"] | list[int]) -> "_Looks":
        return _Looks(*(part[rows] for part in self))


def _similarity(a: _Looks, b: _Looks) -> Float[ndarray, "n m"]:
    """How much looks are alike, each of a with each of b, in [0, 1].

    Weighted mean of Bhattacharyya's coefficients and of ``exp(-d^2 / 2 s^2)``, over what both show of face, shoulders
    and mesh; d is the distance of the proportions.
    """
    squares = np.square(a.shape).sum(axis=1)[:, None] + np.square(b.shape).sum(axis=1)
    apart = (squares - 2 * a.shape @ b.shape.T).clip(min=0)
    seen = [np.outer(a.seen[:, k], b.seen[:, k]) for k in range(len(WEIGHTS))]
    return _weighted(a.face @ b.face.T, a.shoulders @ b.shoulders.T, apart, seen)


def _like_before(looks: _Looks) -> Float[ndarray, " n"]:
    """How much each face looks like the row before it: the diagonal of :func:`_similarity`; 0 for the first."""
    if not len(looks.face):
        return np.zeros(0)
    a, b = looks.take(np.arange(len(looks.face) - 1)), looks.take(np.arange(1, len(looks.face)))
    face, shoulders = ((x * y).sum(axis=1) for x, y in ((a.face, b.face), (a.shoulders, b.shoulders)))
    apart = np.square(a.shape - b.shape).sum(axis=1)
    return np.append(0.0, _weighted(face, shoulders, apart, list((a.seen * b.seen).T)))


def _weighted(face: ndarray, shoulders: ndarray, apart: ndarray, seen: Sequence[ndarray]) -> ndarray:
    alike = (face, shoulders, np.exp(-0.5 * apart / SHAPE_SCALE**2))
    weights = [w * known for w, known in zip(WEIGHTS, seen, strict=True)]
    total = sum(weight * value for weight, value in zip(weights, alike, strict=True))
    return np.asarray(total / np.maximum(sum(weights), 1e-12))


@dataclass
class _Tracklet:
    """Faces that follow each other."""

    rows: list[int]
    scene: int
    clear: int
    """The last face that nobody else's overlapped, or the first: what the person looks like now."""
    velocity: ndarray
    """Change of the box in shares of the picture a second."""


def persons(faces: Faces, settings: Tracking) -> list[Person]:
    """Link faces over the video.

    Args:
        faces: all faces.
        settings: thresholds.

    Returns:
        Persons from left to right by mean position.
    """
    scene, sure = scenes(faces, settings), certain(faces, settings)
    found = _join(_tracklets(faces, scene, sure, settings), faces, settings)
    kept = [rows for rows in found if _is_person(rows, faces, sure, settings)]
    kept.sort(key=lambda rows: _middle(faces, rows))
    return [_bridge(rows, faces, scene, settings) for rows in kept]


def names(people: Sequence[Person]) -> list[str]:
    """What the people of a new video are called, from left to right."""
    known = {0: [], 1: ["main"], 2: ["left", "right"]}
    return known.get(len(people), [str(i + 1) for i in range(len(people))])


def choose(people: Sequence[Person], faces: Faces, name: str) -> Person | None:
    """The person that a label's name means.

    Args:
        people: from :func:`persons`.
        faces: all faces.
        name: ``left``, ``right``, ``main`` (largest area times presence) or a 1-based number from the left.

    Returns:
        The person, or None if the video shows no such one. One person alone is the left and the right one.

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


def at(people: Sequence[Person], points: Sequence[tuple[int, float, float]]) -> Person | None:
    """The person that most of the points lie on.

    Args:
        people: from :func:`persons`.
        points: frame, and x and y as shares of the picture.

    Returns:
        The person, or None if no point lies on anyone.
    """
    hits = [0] * len(people)
    for frame, x, y in points:
        for i, person in enumerate(people):
            for left, top, right, bottom in person.box[person.frame == frame]:
                hits[i] += bool(left <= x <= right and top <= y <= bottom)
    return people[int(np.argmax(hits))] if any(hits) else None


def iou(a: Float[ndarray, "*n 4"], b: Float[ndarray, "*m 4"]) -> Float[ndarray, "*k"]:
    """Intersection over union of boxes, broadcast over the leading axes."""
    size = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(min=0)
    both = size.prod(axis=-1)
    total = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - both
    return np.asarray(both / np.maximum(total, 1e-12))


def scenes(faces: Faces, settings: Tracking) -> Int[ndarray, " faces"]:
    """Number of the scene that each face is in: it rises where the picture's thumbnail jumps."""
    before = np.concatenate([faces.thumbnail[:1], faces.thumbnail[:-1]]).astype(np.float64)
    change = np.abs(faces.thumbnail - before).mean(axis=1) / 255
    return np.cumsum(change > settings.cut)


def certain(faces: Faces, settings: Tracking) -> Bool[ndarray, " faces"]:
    """Which faces have a mesh or a high confidence; the others may be ghosts."""
    return ~np.isnan(faces.shape).any(axis=1) | (faces.score >= settings.min_score)


def _tracklets(
    faces: Faces, scene: Int[ndarray, " faces"], sure: Bool[ndarray, " faces"], settings: Tracking
) -> list[_Tracklet]:
    """Link the faces of each frame to the tracklets alive, best total affinity first.

    Certain faces choose first; the others may go on with a tracklet that is left, and begin none.

    Source: ByteTrack (arXiv 2110.06864), for the two rounds.
    """
    looks = _Looks.of(faces.colors, faces.shape)
    follows = sure & _follows(faces, looks, settings)
    done: list[_Tracklet] = []
    alive: list[_Tracklet] = []
    starts = np.flatnonzero(np.diff(faces.frame, prepend=-1)).tolist()
    for start, end in pairwise([*starts, len(faces.frame)] if starts else []):
        now, here = faces.time_s[start], int(scene[start])
        goes_on = [now - faces.time_s[t.rows[-1]] <= settings.max_gap_s and t.scene == here for t in alive]
        done += [t for t, on in zip(alive, goes_on, strict=True) if not on]
        alive = [t for t, on in zip(alive, goes_on, strict=True) if on]
        if end - start == 1 and len(alive) == 1 and follows[start] and alive[0].rows[-1] == alive[0].clear == start - 1:
            _add(alive[0], start, faces, crowded=False)  # nobody else to choose from
            continue
        rows = np.arange(start, end)
        crowded = _crowded(faces.box[rows])
        left = alive
        for chosen in (rows[sure[rows]], rows[~sure[rows]]):
            linked, left = _link(left, chosen, faces, looks, settings)
            for tracklet, row in linked:
                _add(tracklet, row, faces, crowded=bool(crowded[row - start]))
        taken = {t.rows[-1] for t in alive}
        alive += [_Tracklet([row], here, row, np.zeros(4)) for row in rows[sure[rows]].tolist() if row not in taken]
    return done + alive


def _follows(faces: Faces, looks: _Looks, settings: Tracking) -> Bool[ndarray, " faces"]:
    """Which faces are near and like the row before, so that a tracklet which ends there may go on with them."""
    before = np.concatenate([faces.box[:1], faces.box[:-1]])
    return (_nearness(before, faces.box) > 0) & (_like_before(looks) >= settings.min_link)


def _crowded(box: Float[ndarray, "n 4"]) -> Bool[ndarray, " n"]:
    """Which faces of a frame overlap another one."""
    if len(box) == 1:
        return np.zeros(1, dtype=bool)
    return np.asarray((iou(box[:, None], box[None]) > CROWDED_IOU).sum(axis=1) > 1)


def _link(
    tracklets: list[_Tracklet], rows: Int[ndarray, " n"], faces: Faces, looks: _Looks, settings: Tracking
) -> tuple[list[tuple[_Tracklet, int]], list[_Tracklet]]:
    """Tracklets with the faces that go on with them, and the tracklets that are left."""
    if not tracklets or not len(rows):
        return [], tracklets
    affinity = _affinities(tracklets, rows, faces, looks, settings)
    pairs = {int(i): int(rows[j]) for i, j in zip(*linear_sum_assignment(-affinity), strict=True) if affinity[i, j] > 0}
    linked = [(tracklets[i], row) for i, row in pairs.items()]
    return linked, [t for i, t in enumerate(tracklets) if i not in pairs]


def _affinities(
    tracklets: list[_Tracklet], rows: Int[ndarray, " n"], faces: Faces, looks: _Looks, settings: Tracking
) -> Float[ndarray, "m n"]:
    """Nearness plus similarity of faces to tracklets; 0 where a face is not near or not alike.

    Nearness is the overlap of the boxes, or what is left of a diagonal between them; the tracklet is looked for where
    it was and where its motion would have brought it.
    """
    last = [t.rows[-1] for t in tracklets]
    elapsed = (faces.time_s[rows[0]] - faces.time_s[last])[:, None]
    moved = faces.box[last] + np.stack([t.velocity for t in tracklets]) * elapsed
    near = _nearness(np.stack([faces.box[last], moved])[:, :, None], faces.box[rows]).max(axis=0)
    alike = _similarity(looks.take([t.clear for t in tracklets]), looks.take(rows))
    return np.where((near > 0) & (alike >= settings.min_link), near + alike, 0.0)


def _nearness(a: Float[ndarray, "*n 4"], b: Float[ndarray, "*m 4"]) -> Float[ndarray, "*k"]:
    apart = np.linalg.norm((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2, axis=-1)
    diagonal = np.maximum(np.linalg.norm(b[..., 2:] - b[..., :2], axis=-1), 1e-6)
    return np.maximum(iou(a, b), 0.5 * (1 - apart / diagonal))


def _add(tracklet: _Tracklet, row: int, faces: Faces, *, crowded: bool) -> None:
    before = tracklet.rows[-1]
    speed = (faces.box[row] - faces.box[before]) / max(float(faces.time_s[row] - faces.time_s[before]), 1e-6)
    tracklet.velocity = MEMORY * tracklet.velocity + (1 - MEMORY) * speed
    tracklet.rows.append(row)
    if not crowded:
        tracklet.clear = row


def _join(tracklets: list[_Tracklet], faces: Faces, settings: Tracking) -> list[Int[ndarray, " _"]]:
    """Join tracklets that share no frame, the most similar pair first, until none is similar enough."""
    if not tracklets:
        return []
    rows = [np.array(t.rows) for t in tracklets]
    count = np.array([len(r) for r in rows])
    meshed = np.array([(~np.isnan(faces.shape[r]).any(axis=1)).sum() for r in rows])
    colors = np.stack([faces.colors[r].mean(axis=0, dtype=np.float64) for r in rows])
    shape = np.stack([_mean_shape(faces.shape[r], np.ones(len(r))) for r in rows])
    looks = _Looks.of(colors, shape)
    apart, near = _share_a_frame(rows, faces), NEAR_BONUS * _meeting(tracklets, faces)
    table = np.where(apart, -np.inf, _similarity(looks, looks) + near)
    every = np.arange(len(rows))
    best = table.argmax(axis=1)  # of each row: looking through the whole table anew made this cubic
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
        for part, new in zip(looks, _Looks.of(colors[i : i + 1], shape[i : i + 1]), strict=True):
            part[i] = new[0]
        for matrix in (apart, near):
            matrix[i] = matrix[:, i] = np.maximum(matrix[i], matrix[j])
        alike = _similarity(looks.take([i]), looks)[0] + near[i]
        table[i] = table[:, i] = np.where(apart[i] | (count == 0), -np.inf, alike)
        table[j] = table[:, j] = -np.inf
        stale = np.isin(best, both) | (every == i)
        best[stale] = table[stale].argmax(axis=1)
        best = np.where(table[:, i] > table[every, best], i, best)


def _share_a_frame(rows: list[Int[ndarray, " _"]], faces: Faces) -> Bool[ndarray, "n n"]:
    frame = np.concatenate([faces.frame[r] for r in rows])
    owner = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    table = csr_matrix((np.ones(len(frame), dtype=np.int32), (owner, frame)))
    return (table @ table.T).toarray() > 0


def _meeting(tracklets: list[_Tracklet], faces: Faces) -> Float[ndarray, "n n"]:
    """Overlap of the box at which one tracklet ends and the box at which another of its scene begins, either way."""
    first, last = (faces.box[[t.rows[end] for t in tracklets]] for end in (0, -1))
    scene = np.array([t.scene for t in tracklets])
    begin, end = (faces.frame[[t.rows[i] for t in tracklets]] for i in (0, -1))
    follows = (end[:, None] < begin[None]) & (scene[:, None] == scene[None])
    overlap = np.where(follows, iou(last[:, None], first[None]), 0)
    return np.maximum(overlap, overlap.T)


def _mean_shape(shapes: Float[ndarray, "n S"], weights: Shaped[ndarray, " n"]) -> Float[ndarray, " S"]:
    """Mean over the rows that have a mesh; NaN if none has."""
    seen = ~np.isnan(shapes).any(axis=1)
    if not seen.any():
        return np.full(shapes.shape[1], np.nan)
    return np.average(shapes[seen], axis=0, weights=weights[seen])


def _is_person(rows: Int[ndarray, " n"], faces: Faces, sure: Bool[ndarray, " faces"], settings: Tracking) -> bool:
    """Seen often and long enough, and certain half of the time: neither a ghost nor a passer-by."""
    frames = np.flatnonzero(np.diff(faces.frame, prepend=-1))  # the first face of each
    frame_s = float(np.median(np.diff(faces.time_s[frames]))) if len(frames) > 1 else np.inf
    share = len(rows) / len(frames)
    long_enough = len(rows) * frame_s >= settings.min_person_s or share > 0.5
    return bool(sure[rows].mean() >= 0.5 and share >= settings.min_presence and long_enough)


def _bridge(rows: Int[ndarray, " n"], faces: Faces, scenes_of: Int[ndarray, " faces"], settings: Tracking) -> Person:
    """Fill short gaps between a person's faces with interpolated boxes, unless a scene ends there."""
    frame, time_s, scene = faces.frame[rows], faces.time_s[rows], scenes_of[rows]
    short = (np.diff(time_s) <= settings.max_gap_s) & (np.diff(scene) == 0)
    missing = [np.arange(a + 1, b) for a, b, ok in zip(frame[:-1], frame[1:], short, strict=True) if ok]
    every = np.sort(np.concatenate([frame, *missing]))
    box = np.stack([np.interp(every, frame, faces.box[rows, side]) for side in range(4)], axis=1)
    return Person(rows, every, box, ~np.isin(every, frame))


def _middle(faces: Faces, rows: Int[ndarray, " n"]) -> float:
    return float((faces.box[rows, 0] + faces.box[rows, 2]).mean() / 2)


def _visibility(faces: Faces, rows: Int[ndarray, " n"]) -> float:
    """Area times presence."""
    return float((faces.box[rows, 2:] - faces.box[rows, :2]).prod(axis=1).sum())
