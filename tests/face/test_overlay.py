"""What is drawn onto a frame, and where."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageColor

from affect.face.overlay import COLORS, PersonOverlay, draw, overlay_size

BOX = np.array([0.25, 0.25, 0.75, 0.75])
GREY = np.full((180, 320, 3), 90, dtype=np.uint8)


def shown(*, number: int = 0, box: np.ndarray = BOX, bridged: bool = False) -> PersonOverlay:
    """A person."""
    return PersonOverlay(number, "left", box, bridged, "open")


def drawn(person: PersonOverlay) -> np.ndarray:
    """Where the person's colour is."""
    picture = draw(GREY, [person], "")
    return (picture == ImageColor.getrgb(COLORS[person.number % len(COLORS)])).all(axis=2)


def test_a_box_is_drawn_around_the_face_in_the_persons_colour():
    lit = drawn(shown(number=2))
    assert lit[60:120, 79:82].any(axis=1).all() and lit[60:120, 239:242].any(axis=1).all()  # both sides, whole
    assert not lit[60:120, 100:220].any()  # the face is left free


def test_a_bridged_box_is_dashed():
    whole, dashed = (drawn(shown(bridged=bridged))[60:120, 78:83].any(axis=1) for bridged in (False, True))
    assert whole.all() and 0.2 < dashed.mean() < 0.8


def test_the_picture_itself_is_not_touched():
    before = GREY.copy()
    assert (draw(GREY, [shown()], "frame 1") != before).any()
    assert (GREY == before).all()


@given(st.tuples(*[st.floats(0, 1)] * 4), st.integers(0, 40), st.integers(2, 300), st.integers(2, 300))
def test_any_box_in_any_picture_can_be_drawn(corners: tuple, number: int, height: int, width: int):
    x, y = sorted(corners[:2]), sorted(corners[2:])
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    person = shown(number=number, box=np.array([x[0], y[0], x[1], y[1]]))
    assert draw(picture, [person, person], "caption").shape == picture.shape


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1920, 1080, (960, 540)),
        (320, 240, (320, 240)),
        (641, 361, (640, 360)),
        (1, 1, (2, 2)),
        (1080, 1920, (540, 960)),
        (7680, 4320, (960, 540)),
    ],
)
def test_pictures_are_drawn_at_an_even_size_that_is_not_too_large(width: int, height: int, expected: tuple[int, int]):
    assert overlay_size(width, height, 960, 960) == expected
