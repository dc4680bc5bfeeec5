"""The area between the lips."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from affect.face.mesh import LOWER, UPPER, inner_lip_area


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


@given(st.floats(0.001, 0.9))
def test_open_lips_have_the_area_of_their_polygon(height: float):
    points = ellipse(height)
    polygon = np.concatenate([points[list(UPPER)], points[list(LOWER)][-2:0:-1]])
    assert inner_lip_area(points) == pytest.approx(shoelace(polygon))


def test_lips_that_touch_have_none():
    assert inner_lip_area(ellipse(0.0)) == 0


@given(st.floats(0.1, 10), st.floats(-3, 3))
def test_the_area_grows_with_the_square_of_the_size_and_not_with_the_place(scale: float, shift: float):
    points = ellipse(0.2)
    assert inner_lip_area(points * scale + shift) == pytest.approx(inner_lip_area(points) * scale**2, rel=1e-6)


def test_lips_that_cross_count_no_negative_area():
    points = ellipse(0.2)
    swapped = points.copy()
    swapped[list(UPPER)], swapped[list(LOWER)] = points[list(LOWER)], points[list(UPPER)]
    assert inner_lip_area(swapped) == pytest.approx(inner_lip_area(points)) and inner_lip_area(points) > 0
