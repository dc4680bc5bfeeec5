"""Boxes that grow, and the squares and numbers that the encoder sees."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from affect.face.crop import grow, letterbox, normalise

coordinates = st.floats(0, 1)
boxes = st.tuples(*[coordinates] * 4).map(
    lambda c: (min(c[0], c[1]), min(c[2], c[3]), max(c[0], c[1]), max(c[2], c[3]))
)


@settings(deadline=None)
@given(st.lists(boxes, max_size=4), st.floats(0, 0.9))
def test_a_grown_box_holds_the_old_one_and_stays_in_the_picture(corners: list, share: float):
    box = np.array(corners, dtype=np.float64).reshape(-1, 4)
    grown = grow(box, share)
    assert grown.shape == box.shape and (grown[:, :2] <= box[:, :2]).all() and (grown[:, 2:] >= box[:, 2:]).all()
    assert ((grown >= 0) & (grown <= 1)).all()


def test_a_box_grows_on_each_side_by_its_share():
    box = np.array([[0.4, 0.2, 0.6, 0.6], [0.0, 0.5, 0.5, 1.0]])
    assert grow(box, 0.1) == pytest.approx(np.array([[0.38, 0.16, 0.62, 0.64], [0.0, 0.45, 0.55, 1.0]]))


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ([0.0, 0.0, 1.0, 1.0], (60, 180), (0, 240)),  # 200 x 100 px: half as high as wide
        ([0.25, 0.0, 0.5, 1.0], (0, 240), (60, 180)),  # 50 x 100 px
        ([0.0, 0.0, 0.5, 1.0], (0, 240), (0, 240)),
    ],
)
def test_a_crop_is_scaled_to_its_longest_side_and_centred_on_black(
    box: list[float], rows: tuple[int, int], columns: tuple[int, int]
):
    picture = np.full((100, 200, 3), 200, dtype=np.uint8)
    expected = np.zeros((1, 240, 240, 3), dtype=np.uint8)
    expected[0, slice(*rows), slice(*columns)] = 200
    assert (letterbox(picture, np.array([box]), 240) == expected).all()


def test_a_crop_holds_what_the_box_holds():
    picture = np.zeros((60, 80, 3), dtype=np.uint8)
    picture[20:40, 40:60] = (10, 120, 250)
    assert (letterbox(picture, np.array([[0.5, 1 / 3, 0.75, 2 / 3]]), 32) == (10, 120, 250)).all()
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[None, :, None] * 8, (32, 32, 3)).copy()
    assert (letterbox(ramp, np.array([[0.0, 0, 1, 1]]), 32) == ramp).all()


@settings(deadline=None)
@example([(1.0, 0.0, 1.0, 1.0), (0.0, 1.0, 0.0, 1.0)], 20, 10)  # faces that have all but left the picture
@given(st.lists(boxes, min_size=1, max_size=3), st.integers(1, 50), st.integers(1, 50))
def test_any_box_within_the_picture_gives_a_square(corners: list, width: int, height: int):
    squares = letterbox(np.full((height, width, 3), 9, dtype=np.uint8), np.array(corners), 24)
    assert squares.shape == (len(corners), 24, 24, 3)
    for square in squares:
        lit = np.argwhere(square[..., 0] == 9)
        assert set(np.unique(square).tolist()) <= {0, 9} and max(np.ptp(lit, axis=0)) == 23


@settings(deadline=None)
@given(st.lists(boxes, max_size=4), st.integers(0, 2**16))
def test_crops_of_many_boxes_are_those_of_each(corners: list, seed: int):
    picture = np.random.default_rng(seed).integers(0, 256, size=(31, 47, 3), dtype=np.uint8)
    box = np.array(corners, dtype=np.float64).reshape(-1, 4)
    together, kept = letterbox(picture, box, 16), picture.copy()
    assert together.shape == (len(box), 16, 16, 3)
    assert all(
        (square == letterbox(picture, one[None], 16)[0]).all() for square, one in zip(together, box, strict=True)
    )
    assert (picture == kept).all()


def test_pixels_are_normalised_as_imagenet_wants_them():
    crops = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    crops[0, 0, 1] = torch.tensor([255, 128, 0], dtype=torch.uint8)
    values = normalise(crops)
    assert values.shape == (1, 3, 2, 2)
    assert values[0, :, 0, 1].tolist() == pytest.approx(
        [(1 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, -0.406 / 0.225]
    )
    assert values[0, :, 1, 1].tolist() == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])


@settings(deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 3), st.integers(1, 9))
def test_normalised_pixels_are_those_of_the_formula_with_channels_last_in_memory(seed: int, num: int, side: int):
    crops = np.random.default_rng(seed).integers(0, 256, size=(num, side, side, 3), dtype=np.uint8)
    expected = (crops / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    values = normalise(torch.from_numpy(crops))
    assert values.dtype == torch.float32 and values.is_contiguous(memory_format=torch.channels_last)
    assert values.permute(0, 2, 3, 1).numpy() == pytest.approx(expected, abs=1e-6)
