"""Who is who: faces of single frames become persons of a whole video, and a label's name picks one.

Faces are linked from frame to frame by place and looks into tracklets; a scene cut ends them all. Tracklets are then
joined into persons by looks, wherever in the video they are. Everything works on a whole video's boxes, so no state
crosses clips. Looks are the colours of face and shoulders and the proportions of the mesh: GRADA's embedding tells
expressions apart, not people.

Differs: in the paper identities were assigned by hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix

from affect.config import Tracking

COLOR_WEIGHTS = (0.5, 0.25)
"""Share of the face's and of the shoulders' colours in a similarity."""
SHAPE_WEIGHT = 0.25
"""Share of the mesh's proportions."""
SHAPE_SCALE = 0.15
"""Distance of proportions that speaks for two people: one person's differ by .05, two people's by .2 and more."""
NEAR_BONUS = 0.15
"""What is added to the similarity of two tracklets of one scene that end and begin at the same place."""
MEMORY = 0.9
"""Share of a tracklet's looks and motion that stays when a face is added."""
CROWDED_IOU = 0.05
"""A face that overlaps another one more than this does not change its tracklet's looks: it may show the other's."""


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


@dataclass
class _Tracklet:
    """Faces that follow each other."""

    rows: list[int]
    scene: int
    colors: ndarray
    """Mean of late, as is the shape."""
    shape: ndarray
    clear: int
    """The last face that nobody else's overlapped."""
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
    tracklets = _tracklets(faces, settings)
    if not tracklets:
        return []
    found = _join(tracklets, faces, settings)
    kept = [rows for rows in found if _is_person(rows, faces, settings)]
    kept.sort(key=lambda rows: _middle(faces, rows))
    return [_bridge(rows, faces, settings) for rows in kept]


def choose(people: Sequence[Person], faces: Faces, name: str) -> Person | None:
    """The person that a label's name means.

    Args:
        people: from :func:`persons`.
        faces: all faces.
        name: ``left``, ``right``, ``main`` (largest area times presence) or a 1-based number from the left.

    Returns:
        The person, or None if the video shows no such one. One person alone is the left and the right one.
    """
    if not people:
        return None
    visible = sorted(people, key=lambda person: -_visibility(faces, person.rows))
    if name == "main":
        return visible[0]
    if name.isdigit():
        return people[int(name) - 1] if 1 <= int(name) <= len(people) else None
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
    change = np.abs(np.diff(faces.thumbnail.astype(np.float64), axis=0)).mean(axis=1) / 255
    return np.concatenate([[0], np.cumsum(change > settings.cut)])


def certain(faces: Faces, settings: Tracking) -> Bool[ndarray, " faces"]:
    """Which faces have a mesh or a high confidence; the others may be ghosts."""
    return ~np.isnan(faces.shape).any(axis=1) | (faces.score >= settings.min_score)


def _tracklets(faces: Faces, settings: Tracking) -> list[_Tracklet]:
    """Link the faces of each frame to the tracklets alive, best total affinity first.

    Certain faces choose first; the others may go on with a tracklet that is left, and begin none.

    Source: ByteTrack (arXiv 2110.06864), for the two rounds.
    """
    scene, sure = scenes(faces, settings), certain(faces, settings)
    done: list[_Tracklet] = []
    alive: list[_Tracklet] = []
    starts = np.flatnonzero(np.diff(faces.frame, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(faces.frame)], strict=True):
        now, here = faces.time_s[start], int(scene[start])
        goes_on = [now - faces.time_s[t.rows[-1]] <= settings.max_gap_s and t.scene == here for t in alive]
        done += [t for t, on in zip(alive, goes_on, strict=True) if not on]
        alive = [t for t, on in zip(alive, goes_on, strict=True) if on]
        rows = np.arange(start, end)
        box = faces.box[rows]
        crowded = set(rows[np.any(iou(box[:, None], box[None]) - np.eye(len(rows)) > CROWDED_IOU, axis=1)].tolist())
        left = alive
        for chosen in (rows[sure[rows]], rows[~sure[rows]]):
            linked, left = _link(left, chosen, faces, settings)
            for tracklet, row in linked:
                _add(tracklet, row, faces, crowded=row in crowded)
        new = sorted(set(rows[sure[rows]].tolist()) - {t.rows[-1] for t in alive})
        alive += [_Tracklet([row], here, faces.colors[row], faces.shape[row], row, np.zeros(4)) for row in new]
    return done + alive


def _link(
    tracklets: list[_Tracklet], rows: Int[ndarray, " n"], faces: Faces, settings: Tracking
) -> tuple[list[tuple[_Tracklet, int]], list[_Tracklet]]:
    """Tracklets with the faces that go on with them, and the tracklets that are left."""
    if not tracklets or not len(rows):
        return [], tracklets
    affinity = _affinities(tracklets, rows, faces, settings)
    pairs = {int(i): int(rows[j]) for i, j in zip(*linear_sum_assignment(-affinity), strict=True) if affinity[i, j] > 0}
    linked = [(tracklets[i], row) for i, row in pairs.items()]
    return linked, [t for i, t in enumerate(tracklets) if i not in pairs]


def _affinities(
    alive: list[_Tracklet], rows: Int[ndarray, " n"], faces: Faces, settings: Tracking
) -> Float[ndarray, "m n"]:
    """Nearness plus similarity of faces to tracklets; 0 where a face is not near or not alike.

    Nearness is the overlap of the boxes, or what is left of a diagonal between them; the tracklet is looked for where
    it was and where its motion would have brought it.
    """
    last = np.array([t.rows[-1] for t in alive])
    elapsed = (faces.time_s[rows[0]] - faces.time_s[last])[:, None]
    moved = faces.box[last] + np.stack([t.velocity for t in alive]) * elapsed
    box = faces.box[rows]
    near = np.maximum(*(_nearness(start[:, None], box[None]) for start in (faces.box[last], moved)))
    clear = [t.clear for t in alive]
    looks = (
        (np.stack([t.colors for t in alive]), np.stack([t.shape for t in alive])),
        (faces.colors[clear], faces.shape[clear]),  # where the light changes fast, the mean comes late
    )
    alike = np.maximum(*(_similarity(c[:, None], s[:, None], faces.colors[rows], faces.shape[rows]) for c, s in looks))
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
    if crowded:
        return
    tracklet.clear = row
    tracklet.colors = MEMORY * tracklet.colors + (1 - MEMORY) * faces.colors[row]
    if np.isnan(tracklet.shape).any():
        tracklet.shape = faces.shape[row]
    elif not np.isnan(faces.shape[row]).any():
        tracklet.shape = MEMORY * tracklet.shape + (1 - MEMORY) * faces.shape[row]


def _similarity(
    colors_a: Float[ndarray, "*n C"],
    shape_a: Float[ndarray, "*n S"],
    colors_b: Float[ndarray, "*m C"],
    shape_b: Float[ndarray, "*m S"],
) -> Float[ndarray, "*k"]:
    """How much two looks are alike, in [0, 1]: weighted mean over what both show of face, shoulders and mesh."""
    half = colors_a.shape[-1] // 2
    total = weight = np.zeros(np.broadcast_shapes(colors_a.shape[:-1], colors_b.shape[:-1]))
    for part, share in zip((slice(half), slice(half, None)), COLOR_WEIGHTS, strict=True):
        a, b = colors_a[..., part], colors_b[..., part]
        length = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        seen = share * (length > 0)
        total, weight = total + seen * (a * b).sum(axis=-1) / np.maximum(length, 1e-12), weight + seen
    apart = np.linalg.norm(shape_a - shape_b, axis=-1)
    seen = SHAPE_WEIGHT * ~np.isnan(apart)
    total = total + seen * np.exp(-0.5 * (np.nan_to_num(apart) / SHAPE_SCALE) ** 2)
    return total / np.maximum(weight + seen, 1e-12)


def _join(tracklets: list[_Tracklet], faces: Faces, settings: Tracking) -> list[Int[ndarray, " _"]]:
    """Join tracklets that share no frame, the most similar pair first, until none is similar enough."""
    rows = [np.array(t.rows) for t in tracklets]
    count = np.array([len(r) for r in rows], dtype=np.float64)
    colors = np.stack([faces.colors[r].mean(axis=0) for r in rows])
    shape = np.stack([_mean_shape(faces.shape[r]) for r in rows])
    apart = _share_a_frame(rows, faces)
    near = NEAR_BONUS * _meeting(tracklets, faces)

    def alike(i: int) -> ndarray:
        value = _similarity(colors[i], shape[i], colors, shape) + near[i]
        return np.where(apart[i] | (count == 0), -np.inf, value)

    table = np.stack([alike(i) for i in range(len(rows))])
    while True:
        i, j = np.unravel_index(int(table.argmax()), table.shape)
        if table[i, j] < settings.min_similarity:
            return [r for r in rows if len(r)]
        share = count[j] / (count[i] + count[j])
        colors[i] += share * (colors[j] - colors[i])
        shape[i] = _mean_shape(np.stack([shape[i], shape[j]]), np.array([1 - share, share]))
        rows[i], rows[j] = np.sort(np.concatenate([rows[i], rows[j]])), rows[j][:0]
        count[i], count[j] = count[i] + count[j], 0
        for matrix in (apart, near):
            matrix[i] = matrix[:, i] = np.maximum(matrix[i], matrix[j])
        apart[i, i] = True
        table[i] = table[:, i] = alike(int(i))
        table[j] = table[:, j] = -np.inf


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


def _mean_shape(shapes: Float[ndarray, "n S"], weights: Float[ndarray, " n"] | None = None) -> Float[ndarray, " S"]:
    """Mean over the rows that have a mesh; NaN if none has."""
    seen = ~np.isnan(shapes).any(axis=1)
    if not seen.any():
        return np.full(shapes.shape[1], np.nan)
    return np.average(shapes[seen], axis=0, weights=None if weights is None else weights[seen])


def _is_person(rows: Int[ndarray, " n"], faces: Faces, settings: Tracking) -> bool:
    """Seen often and long enough, and certain half of the time: neither a ghost nor a passer-by."""
    intervals = np.diff(np.unique(faces.time_s))
    frame_s = float(np.median(intervals)) if len(intervals) else np.inf
    share = len(rows) / len(np.unique(faces.frame))
    long_enough = len(rows) * frame_s >= settings.min_person_s or share > 0.5
    return bool(certain(faces, settings)[rows].mean() >= 0.5 and share >= settings.min_presence and long_enough)


def _bridge(rows: Int[ndarray, " n"], faces: Faces, settings: Tracking) -> Person:
    """Fill short gaps between a person's faces with interpolated boxes, unless a scene ends there."""
    frame, time_s, scene = faces.frame[rows], faces.time_s[rows], scenes(faces, settings)[rows]
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
