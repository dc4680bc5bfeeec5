"""Persons from boxes: who is linked to whom, what is bridged, what is dropped, and whom a name or a point means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy import ndarray

from affect.face.tracks import Faces, Person, iou, person_at, person_named, persons, scenes
from affect.settings.extraction import Tracking

FPS = 32.0  # times of frames are exact in binary, so that a gap of one second is one second
COLORS = np.hstack([np.eye(8), np.eye(8)])
SHAPES = 0.3 * np.eye(8)

quickly = settings(deadline=None, max_examples=40)


@dataclass(frozen=True)
class Part:
    """A stay of someone in the picture, at the left edge that ``left`` gives for a frame."""

    look: int
    frames: Sequence[int]
    left: float | Callable[[int], float] = 0.4
    size: float = 0.2
    score: float = 0.9
    mesh: bool = True


def video(*parts: Part, cuts: Sequence[int] = ()) -> Faces:
    """Faces as a detector lists them, by frame and then from left to right; the picture jumps at every cut."""
    seen = [
        (frame, part.left(frame) if callable(part.left) else part.left, number)
        for number, part in enumerate(parts)
        for frame in part.frames
    ]
    seen.sort()
    of = [parts[number] for _, _, number in seen]
    frame = np.array([f for f, _, _ in seen], dtype=np.int64)
    left, size = np.array([x for _, x, _ in seen]), np.array([part.size for part in of])
    picture = np.searchsorted(np.asarray(cuts, dtype=np.int64), frame, side="right") % 2 * 200
    return Faces(
        frame,
        frame / FPS,
        np.stack([left, 0 * left + 0.2, left + size, 0.2 + size], axis=1).reshape(-1, 4),
        np.array([part.score for part in of], dtype=np.float64),
        COLORS[[part.look for part in of]].reshape(-1, 16),
        np.array([SHAPES[part.look] if part.mesh else np.full(8, np.nan) for part in of]).reshape(-1, 8),
        np.repeat(picture[:, None], 6, axis=1).astype(np.uint8),
    )


def taken(faces: Faces, rows: ndarray) -> Faces:
    """These faces only, in this order."""
    return Faces(*(getattr(faces, field.name)[rows] for field in fields(Faces)))


def looks_of(faces: Faces) -> ndarray:
    """Whose face each is."""
    return faces.colors[:, :8].argmax(axis=1)


def looks(faces: Faces, person: Person) -> set[int]:
    """Whose faces a person has."""
    return set(looks_of(faces)[person.rows].tolist())


def mixed(one: int, other: int, likeness: float) -> ndarray:
    """Colours that are alike to one look by this much and have the rest from another."""
    return likeness * COLORS[one] + np.sqrt(1 - likeness**2) * COLORS[other]


def found(faces: Faces, tracking: Tracking | None = None) -> list[tuple[set[int], int]]:
    """Of every person, the looks and the number of faces."""
    return [(looks(faces, p), len(p.rows)) for p in persons(faces, tracking or Tracking())]


def test_nobody_is_nobody():
    faces = video()
    assert persons(faces, Tracking()) == []
    assert all(person_named([], faces, name) is None for name in ("main", "left", "right", "1"))
    assert person_at([], [(0, 0.5, 0.5)]) is None


@pytest.mark.parametrize("mesh", [True, False])
def test_one_face_of_one_frame_is_a_person_of_one_frame(mesh: bool):
    [person] = persons(video(Part(0, [7], mesh=mesh)), Tracking())
    assert person.rows.tolist() == [0] and person.frame.tolist() == [7] and not person.bridged.any()


def test_one_person_is_one_person_across_short_and_long_gaps_and_short_ones_are_bridged():
    frames = [*range(30), *range(45, 60), *range(200, 260)]
    [person] = persons(video(Part(0, frames, left=lambda frame: 0.2 + 0.001 * frame)), Tracking())
    assert person.rows.tolist() == list(range(len(frames)))
    assert person.frame.tolist() == [*range(60), *range(200, 260)]
    assert person.frame[person.bridged].tolist() == list(range(30, 45))
    assert person.box[:, 0] == pytest.approx(0.2 + 0.001 * person.frame)


@pytest.mark.parametrize(("unseen", "bridged"), [(31, 31), (32, 0)])
def test_a_gap_is_bridged_up_to_the_longest_one_and_not_beyond(unseen: int, bridged: int):
    frames = [*range(50), *range(50 + unseen, 120)]  # 32 frames from face to face are one second
    [person] = persons(video(Part(0, frames)), Tracking(max_gap_s=1.0))
    assert person.bridged.sum() == bridged and len(person.rows) == len(frames)


def test_a_gap_is_not_bridged_across_a_cut():
    faces = video(Part(0, [*range(40), *range(44, 90)]), cuts=[42])
    [person] = persons(faces, Tracking())
    assert len(person.rows) == 86 and not person.bridged.any() and person.frame.tolist() == faces.frame.tolist()


@pytest.mark.parametrize("hidden", [0, 4, 16, 31])
def test_people_who_cross_are_told_apart_though_one_is_hidden(hidden: int):
    rng = np.random.default_rng(hidden)
    middle = range(50 - hidden // 2, 50 - hidden // 2 + hidden)
    there, back = (lambda f: 0.1 + 0.006 * f), (lambda f: 0.7 - 0.006 * f)
    faces = video(Part(0, [f for f in range(100) if f not in middle], left=there), Part(1, range(100), left=back))
    colors = np.abs(
        0.6 * faces.colors + 0.4 * faces.colors[::-1].mean(axis=0) + rng.normal(0, 0.05, faces.colors.shape)
    )
    people = persons(replace(faces, colors=colors), Tracking())
    told = [(looks(faces, person), len(person.rows), int(person.bridged.sum())) for person in people]
    assert sorted(told, key=str) == [({0}, 100 - hidden, hidden), ({1}, 100, 0)]


def test_people_who_change_places_while_hidden_are_told_by_their_looks():
    before, after = range(50), range(55, 120)
    faces = video(Part(0, before, 0.35), Part(1, before, 0.6), Part(1, after, 0.35), Part(0, after, 0.6))
    assert found(faces) == [({1}, 115), ({0}, 115)]


def test_two_people_who_are_seen_together_are_never_joined_however_alike():
    assert found(video(Part(0, range(100), 0.1), Part(0, range(99, 200), 0.6))) == [({0}, 100), ({0}, 101)]


def test_whoever_a_cut_puts_at_the_same_place_is_somebody_else():
    told = found(video(Part(0, range(60)), Part(1, range(60, 120)), cuts=[60]))
    assert [(who, num) for who, num in told if who == {0}] == [({0}, 60)] and len(told) == 2 and ({1}, 60) in told


def test_a_cut_ends_a_tracklet_even_between_people_who_look_nearly_alike():
    # Alike enough to be linked from frame to frame, not enough to be joined from scene to scene.
    faces = video(Part(0, range(60), mesh=False), Part(1, range(60, 120), mesh=False), cuts=[60])
    faces = replace(faces, colors=np.where(faces.frame[:, None] < 60, COLORS[0], mixed(0, 1, 0.9)))
    tracking = Tracking(min_link=0.8, min_similarity=0.95)
    assert [len(person.rows) for person in persons(faces, tracking)] == [60, 60]
    assert len(persons(replace(faces, thumbnail=faces.thumbnail * 0), tracking)) == 1


def test_people_of_the_same_colours_are_told_by_their_proportions():
    faces = video(Part(0, range(60), 0.1), Part(1, range(60, 120), 0.6), cuts=[60])
    assert [len(p.rows) for p in persons(replace(faces, colors=faces.colors * 0 + 1), Tracking())] == [60, 60]


@pytest.mark.parametrize(("left", "cuts", "people"), [(0.4, [], 1), (0.7, [], 2), (0.4, [80], 2)])
def test_tracklets_that_meet_at_one_place_need_less_likeness(left: float, cuts: list[int], people: int):
    faces = video(Part(0, range(60), mesh=False), Part(0, range(120, 180), left, mesh=False), cuts=cuts)
    colors = np.where(faces.frame[:, None] < 60, COLORS[0], mixed(0, 1, 0.8))
    assert len(persons(replace(faces, colors=colors), Tracking(min_similarity=0.85))) == people


def test_who_moves_on_while_hidden_is_looked_for_where_the_motion_leads():
    frames = [*range(35), *range(55, 75)]  # hidden for three times a face's width
    faces = video(Part(0, frames, lambda frame: 0.012 * frame, size=0.08, mesh=False))
    colors = np.where(faces.frame[:, None] < 50, COLORS[0], mixed(0, 1, 0.8))  # turned while hidden
    assert len(persons(replace(faces, colors=colors), Tracking(min_similarity=0.95))) == 1


def test_faces_that_overlap_do_not_teach_a_tracklet_the_looks_of_the_other_one():
    faces = video(
        Part(0, range(70), 0.4, mesh=False),
        Part(1, range(30, 70), 0.5, mesh=False),
        Part(0, range(75, 105), 0.3, mesh=False),
        Part(2, range(75, 105), 0.5, mesh=False),
    )
    hidden_half = (looks_of(faces) == 0) & (faces.frame >= 30) & (faces.frame < 70)
    colors = np.where((hidden_half | (looks_of(faces) == 2))[:, None], mixed(0, 1, 0.8), faces.colors)
    people = persons(replace(faces, colors=colors), Tracking())
    assert [set(looks_of(faces)[person.rows].tolist()) for person in people] == [{0}, {1}, {2}]


@pytest.mark.parametrize("cuts", [[], [100, 300]])
@pytest.mark.parametrize("mesh", [True, False])
def test_who_returns_elsewhere_after_a_long_absence_or_a_cut_is_the_same_person(cuts: list[int], mesh: bool):
    faces = video(
        Part(0, range(100), 0.1, mesh=mesh),
        Part(1, range(100, 300), 0.1, mesh=mesh),
        Part(0, range(300, 400), 0.7, size=0.1, mesh=mesh),
        cuts=cuts,
    )
    assert found(faces) == [({1}, 200), ({0}, 200)]


def test_a_face_whose_mesh_is_missing_now_and_then_stays_the_same_person():
    gone = [f for f in range(100) if f % 3 == 0]
    faces = video(Part(0, [f for f in range(100) if f not in gone]), Part(0, gone, mesh=False))
    assert found(faces) == [({0}, 100)]


def test_short_ghosts_are_dropped():
    faces = video(Part(0, range(100), 0.1), Part(1, [50], 0.7), Part(2, range(20, 27), 0.7), Part(3, [10, 80], 0.7))
    assert found(faces) == [({0}, 100)]
    assert found(faces, Tracking(min_person_s=0.0)) == [({0}, 100), ({2}, 7)]


def test_who_is_in_few_frames_of_a_long_video_is_a_passer_by():
    faces = video(Part(0, range(1000), 0.1), Part(1, range(300, 340), 0.7))
    assert found(faces) == [({0}, 1000)]
    assert found(faces, Tracking(min_presence=0.04)) == [({0}, 1000), ({1}, 40)]


@pytest.mark.parametrize(("score", "mesh", "people"), [(0.4, False, 1), (0.4, True, 2), (0.5, False, 2)])
def test_a_face_is_certain_by_its_score_or_its_mesh(score: float, mesh: bool, people: int):
    faces = video(Part(0, range(100), 0.1), Part(1, range(100), 0.7, score=score, mesh=mesh))
    assert len(persons(faces, Tracking(min_score=0.5))) == people


@pytest.mark.parametrize(("certain", "people"), [(49, 1), (50, 2)])
def test_a_person_is_certain_half_of_the_time(certain: int, people: int):
    faces = video(
        Part(0, range(100), 0.1),
        Part(1, range(certain), 0.7, mesh=False),
        Part(1, range(certain, 100), 0.7, score=0.4, mesh=False),
    )
    assert len(persons(faces, Tracking(min_score=0.5))) == people


def test_names_choose_by_side_by_visibility_and_by_number():
    faces = video(Part(0, range(40), 0.1), Part(1, range(100), 0.4), Part(2, range(90), 0.75))
    people = persons(faces, Tracking())
    chosen = {name: person_named(people, faces, name) for name in ("main", "left", "right", "1", "2", "3")}
    told = {name: person and looks(faces, person) for name, person in chosen.items()}
    # the sides are those of the two who are seen most
    assert told == {"main": {1}, "left": {1}, "right": {2}, "1": {0}, "2": {1}, "3": {2}}
    assert person_named(people, faces, "4") is None and person_named(people, faces, "0") is None


def test_one_person_alone_is_the_left_and_the_right_one():
    faces = video(Part(0, range(20)))
    [person] = people = persons(faces, Tracking())
    assert all(person_named(people, faces, name) is person for name in ("main", "left", "right", "1"))


def test_a_large_face_seen_half_the_time_may_be_the_main_one():
    faces = video(Part(0, range(100), 0.1), Part(1, range(50), 0.5, size=0.45))
    main = person_named(persons(faces, Tracking()), faces, "main")
    assert main is not None and looks(faces, main) == {1}


def test_a_point_means_the_person_it_lies_on_bridged_frames_included():
    faces = video(Part(0, [*range(40), *range(50, 100)], 0.1), Part(1, range(100), 0.6))
    people = left, right = persons(faces, Tracking())
    assert person_at(people, [(45, 0.2, 0.3)]) is left and person_at(people, [(45, 0.7, 0.3)]) is right
    assert person_at(people, [(0, 0.1, 0.2)]) is left  # the edge belongs to the box


def test_most_points_decide_and_points_on_nobody_do_not_count():
    people = left, right = persons(video(Part(0, range(100), 0.1), Part(1, range(100), 0.6)), Tracking())
    on_left, on_right, beside = (3, 0.2, 0.3), (5, 0.7, 0.3), (6, 0.5, 0.9)
    assert person_at(people, [on_right, on_left, on_left, beside, beside, beside]) is left
    assert person_at(people, [(1000, 0.2, 0.3), on_right]) is right  # past the video's end
    assert person_at(people, [beside, (1000, 0.2, 0.3)]) is None and person_at(people, []) is None


def test_a_crowd_of_fifty_is_fifty_people():
    rng = np.random.default_rng(0)
    num, frames = 50, 40
    frame, who = np.repeat(np.arange(frames), num), np.tile(np.arange(num), frames)
    corner = np.stack([who % 10 / 10, who // 10 / 5], axis=1) + rng.normal(0, 0.002, size=(num * frames, 2))
    colors = np.sqrt(rng.dirichlet(np.full(12, 0.2), size=(num, 2)).reshape(num, 24))[who]
    shape = rng.normal(0, 0.2, size=(num, 45))[who]
    faces = Faces(
        frame,
        frame / FPS,
        np.hstack([corner, corner + np.array([0.06, 0.12])]).clip(0, 1),
        np.full(len(frame), 0.9),
        colors,
        shape,
        np.zeros((len(frame), 6), dtype=np.uint8),
    )
    people = persons(faces, Tracking())
    assert sorted(who[person.rows].tolist() for person in people) == [[n] * frames for n in range(num)]


@st.composite
def crowds(draw: st.DrawFn) -> Faces:
    """Up to four faces a frame of up to five looks, anywhere, with and without a mesh, in scenes and with gaps."""
    counts = draw(st.lists(st.integers(0, 4), min_size=1, max_size=40))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    frame = np.repeat(np.sort(rng.choice(80, size=len(counts), replace=False)), counts)
    who = rng.integers(0, 5, size=len(frame))
    corner = 0.15 * who[:, None] + rng.uniform(0, draw(st.sampled_from([0.02, 0.3])), size=(len(frame), 2))
    shape = rng.normal(0, 0.2, size=(5, 6))[who] + rng.normal(0, 0.02, size=(len(frame), 6))
    shape[rng.random(len(frame)) < 0.3] = np.nan
    pictures = rng.integers(0, 256, size=(3, 6), dtype=np.uint8)
    return Faces(
        frame,
        frame / draw(st.sampled_from([1.0, 8.0, 32.0])),
        np.hstack([corner, corner + rng.uniform(0.01, 0.2, size=corner.shape)]).clip(0, 1),
        rng.random(len(frame)),
        np.sqrt(rng.dirichlet(np.full(4, 0.3), size=(5, 2)).reshape(5, 8))[who] + 0.05 * rng.random((len(frame), 8)),
        shape,
        pictures[frame // 30],
    )


LENIENT = Tracking(min_presence=0.0, min_person_s=0.0, min_score=0.0)
any_tracking = st.builds(
    Tracking,
    max_gap_s=st.floats(0.05, 5),
    min_link=st.floats(0, 0.95),
    min_similarity=st.floats(0, 0.99),
    min_score=st.floats(0, 0.99),
    min_presence=st.floats(0, 0.5),
    min_person_s=st.floats(0, 2),
)


@quickly
@given(crowds(), any_tracking)
def test_no_frame_is_twice_in_one_person_and_no_face_in_two(faces: Faces, tracking: Tracking):
    people = persons(faces, tracking)
    every = [row for person in people for row in person.rows.tolist()]
    assert len(set(every)) == len(every)
    for person in people:
        assert len(person.rows) > 0 and (np.diff(faces.frame[person.rows]) > 0).all()
        assert (np.diff(person.frame) > 0).all()
        assert len(person.frame) == len(person.box) == len(person.bridged)
    centres = [float(faces.box[person.rows][:, [0, 2]].mean()) for person in people]
    assert centres == pytest.approx(sorted(centres))


@quickly
@given(crowds())
def test_where_nothing_is_dropped_every_face_is_somebodys(faces: Faces):
    every = [row for person in persons(faces, LENIENT) for row in person.rows.tolist()]
    assert sorted(every) == list(range(len(faces.frame)))


@quickly
@given(crowds(), any_tracking)
def test_bridged_frames_are_those_of_short_gaps_within_a_scene(faces: Faces, tracking: Tracking):
    scene = scenes(faces, tracking) if len(faces.frame) else np.zeros(0)
    for person in persons(faces, tracking):
        expected: dict[int, ndarray] = {int(faces.frame[row]): faces.box[row] for row in person.rows}
        bridged = []
        for a, b in pairwise(person.rows):
            if faces.time_s[b] - faces.time_s[a] > tracking.max_gap_s or scene[a] != scene[b]:
                continue
            for frame in range(int(faces.frame[a]) + 1, int(faces.frame[b])):
                share = (frame - faces.frame[a]) / (faces.frame[b] - faces.frame[a])
                expected[frame] = (1 - share) * faces.box[a] + share * faces.box[b]
                bridged.append(frame)
        assert person.frame.tolist() == sorted(expected)
        assert person.frame[person.bridged].tolist() == bridged
        assert person.box == pytest.approx(np.stack([expected[f] for f in sorted(expected)]))


@quickly
@given(crowds(), st.integers(0, 2**16))
def test_the_order_of_a_frames_faces_does_not_matter(faces: Faces, seed: int):
    order = np.lexsort([np.random.default_rng(seed).random(len(faces.frame)), faces.frame])
    shuffled = persons(taken(faces, order), LENIENT)
    assert [order[p.rows].tolist() for p in shuffled] == [p.rows.tolist() for p in persons(faces, LENIENT)]


@quickly
@given(crowds(), st.integers(0, 1000), st.floats(0.1, 10))
def test_persons_do_not_depend_on_when_the_video_starts_or_how_looks_are_scaled(faces: Faces, start: int, scale: float):
    later = replace(faces, frame=faces.frame + start, time_s=faces.time_s + start, colors=faces.colors * scale)
    for now, then in zip(persons(faces, LENIENT), persons(later, LENIENT), strict=True):
        assert (then.rows == now.rows).all() and (then.frame == now.frame + start).all()
        assert then.box == pytest.approx(now.box) and (then.bridged == now.bridged).all()


@quickly
@given(crowds())
def test_a_mirrored_video_shows_the_same_people_from_right_to_left(faces: Faces):
    mirrored = replace(faces, box=faces.box[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0])
    people = [person.rows.tolist() for person in persons(faces, LENIENT)]
    assert [person.rows.tolist() for person in persons(mirrored, LENIENT)] == people[::-1]


@quickly
@given(crowds())
def test_a_stricter_choice_of_persons_is_a_part_of_a_lenient_one(faces: Faces):
    lenient = [person.rows.tolist() for person in persons(faces, replace(LENIENT, min_score=Tracking().min_score))]
    strict = [person.rows.tolist() for person in persons(faces, Tracking())]
    assert [rows for rows in lenient if rows in strict] == strict


@quickly
@given(crowds(), st.sampled_from(["main", "left", "right", "1", "2"]))
def test_a_name_means_one_of_the_people_or_nobody(faces: Faces, name: str):
    people = persons(faces, LENIENT)
    chosen = person_named(people, faces, name)
    assert (chosen is None) == (len(people) < (int(name) if name.isdigit() else 1))
    assert chosen is None or any(chosen is person for person in people)


@quickly
@given(crowds(), st.integers(0, 2**16))
def test_points_at_the_middle_of_ones_boxes_mean_that_person(faces: Faces, seed: int):
    people = persons(faces, LENIENT)
    assume(people)
    meant = people[seed % len(people)]
    middle = (meant.box[:, :2] + meant.box[:, 2:]) / 2
    points = [(int(f), float(x), float(y)) for f, (x, y) in zip(meant.frame, middle, strict=True)]
    chosen = person_at(people, points)
    assert chosen is not None
    hits = sum((chosen.box[chosen.frame == f, 0] <= x).any() for f, x, _ in points)
    assert chosen is meant or hits == len(points)  # another box may lie around every one of them


cells = st.tuples(*[st.integers(0, 12)] * 4).map(
    lambda c: (min(c[0], c[1]), min(c[2], c[3]), max(c[0], c[1]), max(c[2], c[3]))
)


@settings(deadline=None)
@given(cells, cells)
def test_overlap_of_boxes_is_that_of_their_cells(a: tuple, b: tuple):
    def covered(box: tuple) -> set[tuple[int, int]]:
        return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}

    shared, all_cells = covered(a) & covered(b), covered(a) | covered(b)
    one, other = np.array(a, dtype=np.float64), np.array(b, dtype=np.float64)
    assert iou(one, other) == pytest.approx(len(shared) / max(len(all_cells), 1))
    assert iou(one, other) == iou(other, one)


@settings(deadline=None)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=30), st.floats(0.01, 0.9))
def test_a_scene_goes_on_until_the_picture_jumps(levels: list[int], cut: float):
    faces = video(Part(0, range(len(levels))))
    faces = replace(faces, thumbnail=np.repeat(np.array(levels, dtype=np.uint8)[:, None], 6, axis=1))
    number = scenes(faces, Tracking(cut=cut))
    expected = [0]
    for before, after in pairwise(levels):
        expected.append(expected[-1] + (abs(after - before) / 255 > cut))
    assert number.tolist() == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, value) for name in ("max_gap_s", "cut") for value in (0.0, -1.0, float("nan"))],
        *[
            (name, value)
            for name in ("min_link", "min_similarity", "min_score", "min_presence")
            for value in (-0.1, 1.0, float("nan"))
        ],
        *[("min_person_s", value) for value in (-0.1, float("nan"))],
    ],
)
def test_a_threshold_out_of_range_is_an_error_that_names_it(name: str, value: float):
    with pytest.raises(ValueError, match=rf"Tracking: {name} is {value}"):
        Tracking(**{name: value})


@quickly
@given(st.integers(0, 2**32 - 1))
def test_a_lone_face_is_followed_as_the_search_would_have(seed: int):
    """The shortcut for one face and one tracklet gives the same persons as the assignment."""
    from affect.face import tracklets

    rng = np.random.default_rng(seed)
    parts = []
    for look in range(int(rng.integers(1, 4))):
        start, length, speed = int(rng.integers(0, 60)), int(rng.integers(5, 80)), rng.uniform(-0.01, 0.01)
        here = float(rng.uniform(0.1, 0.7))
        seen = [f for f in range(start, start + length) if rng.random() < 0.9]
        look = int(rng.integers(0, 3))
        parts.append(Part(look, seen, lambda f, x=here, v=speed: x + v * f, mesh=bool(rng.random() < 0.8)))
    faces = video(*parts, cuts=sorted(rng.integers(0, 100, 2).tolist()))
    quick = persons(faces, Tracking())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracklets, "_follows", lambda faces, looks, settings: np.zeros(len(faces.frame), dtype=bool))
        slow = persons(faces, Tracking())
    assert len(quick) == len(slow)
    for one, other in zip(quick, slow, strict=True):
        assert all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(Person))
