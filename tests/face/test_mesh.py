"""The mesh of a crop: the area between the lips, the face's proportions, and MediaPipe on a photograph."""

from itertools import combinations
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray

from affect import weights
from affect.face.crop import letterbox
from affect.face.mesh import LOWER, RIGID, UPPER, Mesh, Mesher, inner_lip_area, proportions
from affect.settings.extraction import Face

FACE = np.array([[0.33, 0.14, 0.55, 0.36]])  # of the astronaut


@pytest.fixture(scope="module")
def mesher() -> Mesher:
    """The landmarker with the default thresholds."""
    try:
        return Mesher(Face())
    except weights.WeightsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def photo() -> ndarray:
    """An astronaut, 512 x 512, her face around (225, 130)."""
    from skimage import data

    return data.astronaut()


def mesh_of(mesher: Mesher, picture: ndarray, box: ndarray = FACE, side: int = 240) -> Mesh:
    """Mesh of the face in the box."""
    mesh = mesher(letterbox(picture, box, side)[0])
    assert mesh is not None
    return mesh


def test_a_smile_has_its_mouth_its_coefficients_and_its_proportions(mesher: Mesher, photo: ndarray):
    mesh = mesh_of(mesher, photo)
    assert 0.001 < mesh.lip_area < 0.05  # teeth are to be seen
    assert mesh.blendshapes.min() >= 0 and mesh.blendshapes.max() <= 1
    smile = mesh.blendshapes[[44, 45]]  # mouthSmileLeft, mouthSmileRight
    assert smile.min() > 0.5
    assert np.exp(mesh.shape).mean() == pytest.approx(1) and np.isfinite(mesh.shape).all()


def test_the_mouth_is_measured_in_sides_of_the_crop_whatever_its_pixels(mesher: Mesher, photo: ndarray):
    area, finer = (mesh_of(mesher, photo, side=side).lip_area for side in (160, 480))
    assert finer == pytest.approx(area, rel=0.1)
    low, high = FACE[0, :2], FACE[0, 2:]
    wider = np.array([[*(low - 0.25 * (high - low)), *(high + 0.25 * (high - low))]])  # 1.5 times the side
    assert mesh_of(mesher, photo, wider).lip_area * 1.5**2 == pytest.approx(area, rel=0.15)


def test_a_face_keeps_its_proportions_in_a_looser_crop_and_in_a_mirror(mesher: Mesher, photo: ndarray):
    own = mesh_of(mesher, photo).shape
    looser = mesh_of(mesher, photo, FACE + np.array([-0.04, -0.04, 0.04, 0.04])).shape
    assert np.linalg.norm(own - looser) < 0.15
    left, top, right, bottom = FACE[0]
    box = np.array([[1 - right, top, 1 - left, bottom]])
    mirrored = mesh_of(mesher, np.ascontiguousarray(photo[:, ::-1]), box)
    assert np.linalg.norm(own - mirrored.shape) < 0.15 and mirrored.lip_area > 0.001


def test_the_same_crop_gives_the_same_answer_after_others(mesher: Mesher, photo: ndarray):
    before = mesh_of(mesher, photo)
    mesher(np.zeros((240, 240, 3), dtype=np.uint8))
    mesh_of(mesher, photo, FACE + 0.02)
    after = mesh_of(mesher, photo)
    assert before.lip_area == after.lip_area and (before.shape == after.shape).all()


@pytest.mark.parametrize("side", [1, 7, 240])
def test_a_crop_without_a_face_has_no_mesh(mesher: Mesher, photo: ndarray, side: int):
    assert mesher(np.full((side, side, 3), 90, dtype=np.uint8)) is None
    assert mesher(np.random.default_rng(0).integers(0, 256, size=(side, side, 3), dtype=np.uint8)) is None
    assert mesher(letterbox(photo, np.array([[0.5, 0.6, 0.8, 0.9]]), side)[0]) is None


def mouth(upper: ndarray, lower: ndarray) -> ndarray:
    """A mesh of 478 points with these chains of 11, which share their corners; the others lie anywhere."""
    points = np.random.default_rng(0).uniform(size=(478, 2))
    points[list(UPPER)], points[list(LOWER)] = upper, lower
    return points


def ellipse(height: float) -> ndarray:
    """Lips half a unit wide with this opening at the middle."""
    x = np.linspace(0, 1, 11)
    arc = 0.5 * height * np.sin(np.pi * x)
    along = 0.25 + 0.5 * x
    return mouth(np.stack([along, 0.5 - arc], 1), np.stack([along, 0.5 + arc], 1))


def shoelace(polygon: ndarray) -> float:
    """Area of a simple polygon."""
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def test_a_hexagon_of_lips_has_its_area():
    x, middle = np.linspace(0.3, 0.7, 11), np.array([0, *[0.05] * 9, 0])
    area = 0.32 * 0.1 + 0.04 * 0.1  # a rectangle and two triangles
    assert inner_lip_area(mouth(np.stack([x, 0.5 - middle], 1), np.stack([x, 0.5 + middle], 1))) == pytest.approx(area)


@settings(deadline=None)
@given(st.floats(0.001, 0.9))
def test_open_lips_have_the_area_of_their_polygon(height: float):
    points = ellipse(height)
    polygon = np.concatenate([points[list(UPPER)], points[list(LOWER)][-2:0:-1]])
    assert inner_lip_area(points) == pytest.approx(shoelace(polygon))


def test_lips_that_touch_have_none():
    assert inner_lip_area(ellipse(0.0)) == 0


@settings(deadline=None)
@given(st.floats(0.1, 10), st.floats(-3, 3))
def test_the_area_grows_with_the_square_of_the_size_and_not_with_the_place(scale: float, shift: float):
    points = ellipse(0.2)
    assert inner_lip_area(points * scale + shift) == pytest.approx(inner_lip_area(points) * scale**2, rel=1e-6)


def test_lips_that_cross_count_no_negative_area():
    points = ellipse(0.2)
    swapped = points.copy()
    swapped[list(UPPER)], swapped[list(LOWER)] = points[list(LOWER)], points[list(UPPER)]
    assert inner_lip_area(swapped) == pytest.approx(inner_lip_area(points)) and inner_lip_area(points) > 0


seeds = st.integers(0, 2**16)


@settings(deadline=None)
@given(seeds)
def test_proportions_are_distances_over_their_mean_as_logarithms(seed: int):
    points = np.random.default_rng(seed).uniform(size=(478, 3))
    distances = [
        sum((p - q) ** 2 for p, q in zip(points[a], points[b], strict=True)) ** 0.5 for a, b in combinations(RIGID, 2)
    ]
    expected = [log(distance / (sum(distances) / 45)) for distance in distances]
    assert proportions(points) == pytest.approx(np.array(expected))


@settings(deadline=None)
@given(seeds, st.floats(0.1, 10), st.floats(-3, 3))
def test_proportions_do_not_depend_on_size_place_and_turn(seed: int, scale: float, shift: float):
    rng = np.random.default_rng(seed)
    points, turn = rng.uniform(size=(478, 3)), np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert proportions(scale * points @ turn + shift) == pytest.approx(proportions(points), abs=1e-6)


@settings(deadline=None)
@given(seeds)
def test_what_expressions_move_does_not_move_proportions(seed: int):
    rng = np.random.default_rng(seed)
    points, moved = rng.uniform(size=(478, 3)), rng.uniform(size=(478, 3))
    moved[list(RIGID)] = points[list(RIGID)]
    assert (proportions(moved) == proportions(points)).all() and not set(RIGID) & {*UPPER, *LOWER}


def test_a_mesh_that_fell_into_one_point_still_has_finite_proportions():
    assert (proportions(np.full((478, 3), 0.5)) == 0).all()
