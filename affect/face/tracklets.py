"""Tracklets: faces of single frames linked from frame to frame by position and appearance.

A scene cut ends every tracklet. Linking runs over a whole video's faces at once, so no state is carried between clips.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from scipy.optimize import linear_sum_assignment

from affect.face.similarity import Looks, similarity, similarity_to_previous
from affect.settings.extraction import Tracking

MOMENTUM = 0.9
"""Share of a tracklet's velocity that is kept when a face is added."""
CROWDED_IOU = 0.05
"""Overlap with another face above which a face's appearance is not used: its crop may show the other person."""


@dataclass(frozen=True)
class Faces:
    """Every face of a video, one row each, sorted by frame.

    Args:
        frame: 0-based frame number, non-decreasing.
        time_s: presentation time in seconds.
        box: left, top, right, bottom as shares of the picture.
        score: the detector's confidence.
        colors: colour histograms of face and shoulders, from :mod:`affect.face.appearance`.
        shape: proportions of the mesh, NaN without one.
        thumbnail: thumbnail of the whole picture.
    """

    frame: Int[ndarray, " faces"]
    time_s: Float[ndarray, " faces"]
    box: Float[ndarray, "faces 4"]
    score: Float[ndarray, " faces"]
    colors: Float[ndarray, "faces C"]
    shape: Float[ndarray, "faces S"]
    thumbnail: UInt8[ndarray, "faces P"]


@dataclass
class Tracklet:
    """Faces of one person in consecutive frames of one scene.

    Args:
        rows: rows of :class:`Faces`, in order of time.
        scene: number of the scene.
        appearance: row whose appearance stands for the tracklet: the last one that no other face overlapped, or the
            first.
        velocity: change of the box, in shares of the picture per second, (4,).
    """

    rows: list[int]
    scene: int
    appearance: int
    velocity: ndarray


def iou(a: Float[ndarray, "*n 4"], b: Float[ndarray, "*m 4"]) -> Float[ndarray, "*k"]:
    """Intersection over union of boxes, broadcast over the leading axes."""
    size = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(min=0)
    both = size.prod(axis=-1)
    total = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - both
    return np.asarray(both / np.maximum(total, 1e-12))


def scenes(faces: Faces, settings: Tracking) -> Int[ndarray, " faces"]:
    """Scene number of each face: it rises where the picture's thumbnail changes by more than ``settings.cut``."""
    before = np.concatenate([faces.thumbnail[:1], faces.thumbnail[:-1]]).astype(np.float64)
    change = np.abs(faces.thumbnail - before).mean(axis=1) / 255
    return np.cumsum(change > settings.cut)


def confident(faces: Faces, settings: Tracking) -> Bool[ndarray, " faces"]:
    """True for faces with a mesh or a high score; the others may be false detections."""
    return ~np.isnan(faces.shape).any(axis=1) | (faces.score >= settings.min_score)


def link(
    faces: Faces, scene: Int[ndarray, " faces"], sure: Bool[ndarray, " faces"], settings: Tracking
) -> list[Tracklet]:
    """Links the faces of each frame to open tracklets by the assignment with the best total affinity.

    Confident faces are assigned first. The others may extend a tracklet that is left, and never begin one.

    Args:
        faces: all faces of the video.
        scene: from :func:`scenes`.
        sure: from :func:`confident`.
        settings: thresholds.

    Source: ByteTrack (arXiv 2110.06864), for the two rounds of assignment.
    """
    looks = Looks.of(faces.colors, faces.shape)
    follows = sure & _follows(faces, looks, settings)
    closed: list[Tracklet] = []
    open_: list[Tracklet] = []
    starts = np.flatnonzero(np.diff(faces.frame, prepend=-1)).tolist()
    for start, end in pairwise([*starts, len(faces.frame)] if starts else []):
        time_s, current = faces.time_s[start], int(scene[start])
        kept = [time_s - faces.time_s[t.rows[-1]] <= settings.max_gap_s and t.scene == current for t in open_]
        closed += [t for t, keep in zip(open_, kept, strict=True) if not keep]
        open_ = [t for t, keep in zip(open_, kept, strict=True) if keep]
        if end - start == 1 and len(open_) == 1 and follows[start]:
            if open_[0].rows[-1] == open_[0].appearance == start - 1:
                _add(open_[0], start, faces, crowded=False)  # one face, one tracklet: no assignment to solve
                continue
        rows = np.arange(start, end)
        crowded = _crowded(faces.box[rows])
        left = open_
        for candidates in (rows[sure[rows]], rows[~sure[rows]]):
            linked, left = _assign(left, candidates, faces, looks, settings)
            for tracklet, row in linked:
                _add(tracklet, row, faces, crowded=bool(crowded[row - start]))
        taken = {t.rows[-1] for t in open_}
        open_ += [Tracklet([row], current, row, np.zeros(4)) for row in rows[sure[rows]].tolist() if row not in taken]
    return closed + open_


def _follows(faces: Faces, looks: Looks, settings: Tracking) -> Bool[ndarray, " faces"]:
    """True for faces near and similar enough to the row before them to extend a tracklet that ends there."""
    before = np.concatenate([faces.box[:1], faces.box[:-1]])
    return (_nearness(before, faces.box) > 0) & (similarity_to_previous(looks) >= settings.min_link)


def _crowded(box: Float[ndarray, "n 4"]) -> Bool[ndarray, " n"]:
    """True for faces of one frame that overlap another one."""
    if len(box) == 1:
        return np.zeros(1, dtype=bool)
    return np.asarray((iou(box[:, None], box[None]) > CROWDED_IOU).sum(axis=1) > 1)


def _assign(
    tracklets: list[Tracklet], rows: Int[ndarray, " n"], faces: Faces, looks: Looks, settings: Tracking
) -> tuple[list[tuple[Tracklet, int]], list[Tracklet]]:
    """Returns pairs of a tracklet and the row that extends it, and the tracklets without a row."""
    if not tracklets or not len(rows):
        return [], tracklets
    affinity = _affinities(tracklets, rows, faces, looks, settings)
    pairs = {int(i): int(rows[j]) for i, j in zip(*linear_sum_assignment(-affinity), strict=True) if affinity[i, j] > 0}
    linked = [(tracklets[i], row) for i, row in pairs.items()]
    return linked, [t for i, t in enumerate(tracklets) if i not in pairs]


def _affinities(
    tracklets: list[Tracklet], rows: Int[ndarray, " n"], faces: Faces, looks: Looks, settings: Tracking
) -> Float[ndarray, "m n"]:
    """Nearness plus similarity of each face to each tracklet; 0 where either is too low.

    Nearness is the larger one at the tracklet's last box and at the box that its velocity extrapolates.
    """
    last = [t.rows[-1] for t in tracklets]
    elapsed = (faces.time_s[rows[0]] - faces.time_s[last])[:, None]
    moved = faces.box[last] + np.stack([t.velocity for t in tracklets]) * elapsed
    near = _nearness(np.stack([faces.box[last], moved])[:, :, None], faces.box[rows]).max(axis=0)
    alike = similarity(looks.take([t.appearance for t in tracklets]), looks.take(rows))
    return np.where((near > 0) & (alike >= settings.min_link), near + alike, 0.0)


def _nearness(a: Float[ndarray, "*n 4"], b: Float[ndarray, "*m 4"]) -> Float[ndarray, "*k"]:
    """``max(IoU, (1 - d / D) / 2)``: d is the distance of the centres, D the diagonal of b; <= 0 means too far."""
    apart = np.linalg.norm((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2, axis=-1)
    diagonal = np.maximum(np.linalg.norm(b[..., 2:] - b[..., :2], axis=-1), 1e-6)
    return np.maximum(iou(a, b), 0.5 * (1 - apart / diagonal))


def _add(tracklet: Tracklet, row: int, faces: Faces, *, crowded: bool) -> None:
    before = tracklet.rows[-1]
    speed = (faces.box[row] - faces.box[before]) / max(float(faces.time_s[row] - faces.time_s[before]), 1e-6)
    tracklet.velocity = MOMENTUM * tracklet.velocity + (1 - MOMENTUM) * speed
    tracklet.rows.append(row)
    if not crowded:
        tracklet.appearance = row
