"""Who is who: faces of single frames become persons of a whole video, and a label's name picks one.

Boxes are linked from frame to frame over the whole video by overlap and appearance, so no state crosses clips.

Differs: in the paper identities were assigned by hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.optimize import linear_sum_assignment

MAX_GAP_S = 2.0
"""A person unseen for longer starts a new thread, which appearance may join again."""
MIN_LINK = 0.25
"""Weakest link, mean of overlap (or nearness) and appearance similarity."""
MIN_JOIN_SIMILARITY = 0.5
"""Threads that never overlap in time are one person when their mean embeddings are this similar."""
MIN_PRESENCE = 0.05
"""A person is in at least this share of the frames that show any face, and in three frames."""


@dataclass(frozen=True)
class Faces:
    """Every face of a video, one row each, sorted by frame.

    Args:
        frame: 0-based, non-decreasing.
        time_s: presentation time.
        box: left, top, right, bottom as shares of the picture.
        embedding: GRADA's.
    """

    frame: Int[ndarray, " faces"]
    time_s: Float[ndarray, " faces"]
    box: Float[ndarray, "faces 4"]
    embedding: Float[ndarray, "faces D"]


@dataclass
class _Thread:
    rows: list[int]
    mean: ndarray

    def add(self, row: int, embedding: ndarray) -> None:
        self.rows.append(row)
        self.mean = 0.9 * self.mean + 0.1 * embedding


def persons(faces: Faces) -> list[Int[ndarray, " _"]]:
    """Link faces over the video.

    Args:
        faces: all faces.

    Returns:
        Rows of each person, persons from left to right by mean position; no frame twice in one person.
    """
    threads = _threads(faces)
    joined = _join(threads, faces)
    frames_with_face = len(np.unique(faces.frame))
    enough = max(3, MIN_PRESENCE * frames_with_face)
    kept = [rows for rows in joined if len(rows) >= enough]
    return sorted(kept, key=lambda rows: float((faces.box[rows, 0] + faces.box[rows, 2]).mean()))


def choose(persons_rows: Sequence[Int[ndarray, " _"]], faces: Faces, person: str) -> Int[ndarray, " _"]:
    """Rows of the person that a label's name means.

    Args:
        persons_rows: from :func:`persons`.
        faces: all faces.
        person: ``left``, ``right``, ``main`` (largest area times presence) or a 1-based number from the left.

    Returns:
        The person's rows, none if the video shows no such person. One person alone is the left and the right one.
    """
    if not persons_rows:
        return np.empty(0, dtype=np.int64)
    visible = sorted(persons_rows, key=lambda rows: -_visibility(faces, rows))
    if person == "main":
        return visible[0]
    if person.isdigit():
        known = 1 <= int(person) <= len(persons_rows)
        return persons_rows[int(person) - 1] if known else np.empty(0, dtype=np.int64)
    two = sorted(visible[:2], key=lambda rows: float((faces.box[rows, 0] + faces.box[rows, 2]).mean()))
    return two[0] if person == "left" else two[-1]


def _visibility(faces: Faces, rows: Int[ndarray, " rows"]) -> float:
    box = faces.box[rows]
    return float(((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])).sum())


def _threads(faces: Faces) -> list[_Thread]:
    """Link the faces of each frame to the threads alive, best total affinity first."""
    threads: list[_Thread] = []
    starts = np.flatnonzero(np.diff(faces.frame, prepend=-1))
    for start, end in zip(starts, [*starts, len(faces.frame)][1:], strict=True):
        rows = range(int(start), int(end))
        alive = [t for t in threads if faces.time_s[start] - faces.time_s[t.rows[-1]] <= MAX_GAP_S]
        affinity = np.array([[_affinity(faces, t, row) for row in rows] for t in alive]).reshape(len(alive), len(rows))
        linked = set()
        for thread, column in zip(*linear_sum_assignment(-affinity), strict=True):
            if affinity[thread, column] >= MIN_LINK:
                alive[thread].add(rows[column], faces.embedding[rows[column]])
                linked.add(rows[column])
        threads += [_Thread([row], faces.embedding[row].copy()) for row in rows if row not in linked]
    return threads


def _affinity(faces: Faces, thread: _Thread, row: int) -> float:
    """Mean of box overlap and, as far as boxes overlap or lie near, of appearance similarity."""
    a, b = faces.box[thread.rows[-1]], faces.box[row]
    overlap = _iou(a, b)
    distance = float(np.linalg.norm((a[:2] + a[2:] - b[:2] - b[2:]) / 2)) / max(
        float(np.linalg.norm(b[2:] - b[:2])), 1e-6
    )
    if overlap == 0 and distance > 1:
        return 0.0
    return 0.5 * max(overlap, 1 - distance) + 0.5 * max(0.0, _cosine(thread.mean, faces.embedding[row]))


def _iou(a: Float[ndarray, " 4"], b: Float[ndarray, " 4"]) -> float:
    size = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    both = size[0] * size[1]
    total = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return float(both / max(total, 1e-12))


def _cosine(a: Float[ndarray, " D"], b: Float[ndarray, " D"]) -> float:
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


def _join(threads: list[_Thread], faces: Faces) -> list[Int[ndarray, " _"]]:
    """Join threads that share no frame and look alike and lie alike, longest first."""
    joined: list[Int[ndarray, " _"]] = []
    for thread in sorted(threads, key=lambda t: (-len(t.rows), t.rows[0])):
        rows = np.array(thread.rows)
        for i, other in enumerate(joined):
            if not _overlaps(faces.frame[rows], faces.frame[other]) and _same_person(faces, rows, other):
                joined[i] = np.sort(np.concatenate([other, rows]))
                break
        else:
            joined.append(rows)
    return joined


def _overlaps(a: Int[ndarray, " n"], b: Int[ndarray, " m"]) -> bool:
    shared: Bool[ndarray, " n"] = np.isin(a, b)
    return bool(shared.any())


def _same_person(faces: Faces, a: Int[ndarray, " n"], b: Int[ndarray, " m"]) -> bool:
    similar = _cosine(faces.embedding[a].mean(axis=0), faces.embedding[b].mean(axis=0)) >= MIN_JOIN_SIMILARITY
    return similar and _iou(np.median(faces.box[a], axis=0), np.median(faces.box[b], axis=0)) > 0
