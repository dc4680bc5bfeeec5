"""Persons from boxes: who is linked to whom, what is dropped, and whom a name means."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affect.face.tracks import Faces, choose, persons

FPS = 25.0
LOOKS = np.eye(4)


def seen(*people: tuple[float, int, list[int]], drift: float = 0.0, size: float = 0.2) -> Faces:
    """Faces of people given as (left edge, look, frames), as a detector lists them: by frame, from left to right."""
    found = sorted((frame, left + drift * frame, look) for left, look, frames in people for frame in frames)
    frame = np.array([f for f, _, _ in found], dtype=np.int64)
    left = np.array([x for _, x, _ in found], dtype=np.float64)
    box = np.stack([left, 0 * left + 0.2, left + size, 0 * left + 0.6], axis=1)
    return Faces(frame, frame / FPS, box, LOOKS[[look for _, _, look in found]].reshape(-1, 4))


def looks(faces: Faces, rows: np.ndarray) -> set[int]:
    """The looks among rows."""
    return set(faces.embedding[rows].argmax(axis=1).tolist())


def test_nobody_is_nobody():
    faces = seen()
    assert persons(faces) == []
    assert all(len(choose([], faces, person)) == 0 for person in ("main", "left", "right", "1"))


def test_one_person_is_one_person_across_short_and_long_gaps():
    frames = [*range(0, 30), *range(45, 60), *range(200, 260)]  # .6 s, then 5.6 s unseen
    faces = seen((0.4, 0, frames), drift=0.0005)
    [rows] = persons(faces)
    assert faces.frame[rows].tolist() == frames


def test_two_people_stay_apart_and_are_ordered_from_left_to_right():
    faces = seen((0.6, 0, list(range(100))), (0.1, 1, [*range(0, 40), *range(60, 100)]))
    first, second = persons(faces)
    assert (looks(faces, first), looks(faces, second)) == ({1}, {0}) and len(first) == 80 and len(second) == 100


def test_people_who_change_places_while_hidden_are_told_by_their_looks():
    before, after = list(range(50)), list(range(55, 120))
    faces = seen((0.35, 0, before), (0.5, 1, before), (0.35, 1, after), (0.5, 0, after))
    found = persons(faces)
    assert [looks(faces, rows) for rows in found] == [{1}, {0}] and [len(rows) for rows in found] == [115, 115]


def test_a_face_of_one_frame_is_dropped():
    faces = seen((0.1, 0, list(range(100))), (0.7, 1, [50]), (0.8, 2, [10, 80]))
    [rows] = persons(faces)
    assert looks(faces, rows) == {0} and len(rows) == 100


def test_names_choose_by_side_by_visibility_and_by_number():
    everyone = list(range(100))
    faces = seen((0.1, 0, list(range(40))), (0.4, 1, everyone), (0.75, 2, list(range(90))))
    found = persons(faces)
    chosen = {name: looks(faces, choose(found, faces, name)) for name in ("main", "left", "right", "1", "2", "3")}
    assert chosen == {
        "main": {1},
        "left": {1},
        "right": {2},
        "1": {0},
        "2": {1},
        "3": {2},
    }  # sides: of the two most seen
    assert len(choose(found, faces, "4")) == 0 and len(choose(found, faces, "0")) == 0


def test_one_person_alone_is_the_left_and_the_right_one():
    faces = seen((0.1, 0, list(range(20))))
    found = persons(faces)
    assert all(choose(found, faces, name).tolist() == list(range(20)) for name in ("main", "left", "right", "1"))


def test_a_large_face_seen_half_the_time_may_be_the_main_one():
    small = seen((0.1, 0, list(range(100))))
    large = seen((0.5, 1, list(range(50))), size=0.45)
    order = np.argsort(np.concatenate([small.frame, large.frame]), kind="stable")
    joined = [
        np.concatenate([getattr(small, name), getattr(large, name)])[order]
        for name in ("frame", "time_s", "box", "embedding")
    ]
    faces = Faces(*joined)
    assert looks(faces, choose(persons(faces), faces, "main")) == {1}


@st.composite
def crowds(draw: st.DrawFn) -> Faces:
    """Up to four faces a frame, anywhere, of any look."""
    counts = draw(st.lists(st.integers(0, 4), min_size=1, max_size=40))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    frame = np.repeat(np.arange(len(counts)), counts)
    corner = rng.uniform(0, 0.7, size=(len(frame), 2))
    box = np.concatenate([corner, corner + rng.uniform(0.05, 0.3, size=corner.shape)], axis=1)
    return Faces(frame, frame / draw(st.sampled_from([1.0, 6.0, 30.0])), box, rng.normal(size=(len(frame), 3)))


@given(crowds())
def test_no_frame_is_twice_in_one_person_and_no_face_in_two(faces: Faces):
    found = persons(faces)
    every = np.concatenate([np.empty(0, dtype=np.int64), *found])
    assert len(np.unique(every)) == len(every)
    for rows in found:
        assert len(rows) >= 3 and (np.diff(faces.frame[rows]) > 0).all()
    centres = [faces.box[rows][:, [0, 2]].mean() for rows in found]
    assert centres == pytest.approx(sorted(centres))
