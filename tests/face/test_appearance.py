"""Colours of face and shoulders, and the picture's thumbnail."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy import ndarray

from affect.face.appearance import BINS, CHROMA_RANGE, NUM_COLORS, SAMPLES, colors, thumbnail

BOX = np.array([0.4, 0.2, 0.6, 0.5])
shades = st.tuples(*[st.integers(0, 255)] * 3)


def plain(shade: tuple[int, int, int], height: int = 40, width: int = 60) -> ndarray:
    """A picture of one colour."""
    return np.full((height, width, 3), shade, dtype=np.uint8)


def noise(height: int, width: int, seed: int) -> ndarray:
    """A picture of every colour."""
    return np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


def parts(picture: ndarray, box: ndarray = BOX) -> tuple[ndarray, ndarray]:
    """Histograms of face and shoulders."""
    face, shoulders = colors(picture, box).reshape(2, NUM_COLORS)
    return face, shoulders


def slow_histogram(pixels: ndarray) -> ndarray:
    """Pixel by pixel: a tent of one bin's width in each of the three directions."""
    counts = np.zeros(BINS)
    for red, green, blue in pixels.reshape(-1, 3).astype(np.float64) + 1:
        total = red + green + blue
        axes = [(red - green) / total, ((red + green) / 2 - blue) / total]
        shares = [*(min(max(a / CHROMA_RANGE / 2 + 0.5, 0), 1) for a in axes), total / 768]
        tents = [
            np.maximum(0, 1 - np.abs(np.arange(n) - share * (n - 1))) for n, share in zip(BINS, shares, strict=True)
        ]
        counts += np.einsum("i,j,k->ijk", *tents)
    return counts.ravel() / counts.sum()


@settings(deadline=None)
@given(st.integers(0, 2**16), st.integers(1, SAMPLES), st.integers(1, SAMPLES))
def test_a_face_that_fills_the_picture_has_the_histogram_of_its_pixels(seed: int, height: int, width: int):
    picture = noise(height, width, seed)
    face, shoulders = parts(picture, np.array([0.0, 0.0, 1.0, 1.0]))
    assert face == pytest.approx(np.sqrt(slow_histogram(picture)))
    assert not shoulders.any()  # they lie under the picture


def test_the_shoulders_lie_under_the_face_twice_as_wide_and_nearly_as_high():
    picture = plain((10, 10, 10), 100, 100)
    face, shoulders = (20, 50, 40, 60), (50, 74, 30, 70)
    for (top, bottom, left, right), color in ((face, (200, 120, 90)), (shoulders, (20, 40, 200))):
        picture[top:bottom, left:right] = color
    for part, color in zip(parts(picture), ((200, 120, 90), (20, 40, 200)), strict=True):
        assert part == pytest.approx(np.sqrt(slow_histogram(np.array(color))))


@settings(deadline=None)
@given(st.integers(0, 2**16), st.tuples(*[st.floats(0, 1)] * 4), st.integers(1, 90), st.integers(1, 90))
@example(0, (0.0, 0.0, 1.0, 1.0), 1, 1)
@example(0, (0.9, 1.0, 0.9, 1.0), 50, 50)
@example(0, (0.5, 0.5, 0.5, 0.5), 50, 50)
def test_each_part_is_a_unit_vector_or_empty_whatever_the_box(seed: int, corners: tuple, height: int, width: int):
    x, y = sorted(corners[:2]), sorted(corners[2:])
    for part in parts(noise(height, width, seed), np.array([x[0], y[0], x[1], y[1]])):
        assert part.min() >= 0 and (part @ part == pytest.approx(1) or not part.any())


@settings(deadline=None)
@given(st.integers(0, 2**16), st.integers(0, 2**16))
def test_the_same_region_twice_has_coefficient_one_and_any_other_less(seed: int, other: int):
    picture = noise(30, 30, seed)
    for a, again in zip(parts(picture), parts(picture.copy()), strict=True):
        assert a @ again == pytest.approx(1)
    different = plain((other % 256, 255 - other % 256, 128))
    assert all(0 <= a @ b < 1 for a, b in zip(parts(picture), parts(different), strict=True))


@settings(deadline=None)
@given(shades, st.integers(0, 2), st.sampled_from([-1, 1]))
def test_a_shade_more_moves_little(shade: tuple, channel: int, step: int):
    bright = tuple(min(255, 60 + c) for c in shade)  # in the dark a step of one is a great part of the colour
    next_shade = tuple(min(255, c + step * (n == channel)) for n, c in enumerate(bright))
    for a, b in zip(parts(plain(bright)), parts(plain(next_shade)), strict=True):
        assert a @ b > 0.95


@settings(deadline=None)
@given(st.sampled_from([0.5, 0.8, 0.95]), shades)
def test_light_moves_a_colour_less_than_another_colour_does(light: float, shade: tuple):
    skin, darker = plain((210, 150, 120)), plain(tuple(round(light * c) for c in (210, 150, 120)))
    own, lit = (parts(picture)[0] for picture in (skin, darker))
    blue = parts(plain((60, 90, 220)))[0]
    assert own @ lit > 0.4 > own @ blue


def test_looks_do_not_depend_on_the_size_of_the_picture_or_where_the_face_is():
    picture = noise(4, 4, 0).repeat(5, axis=0).repeat(5, axis=1)
    twice = picture.repeat(2, axis=0).repeat(2, axis=1)
    box = np.array([0.25, 0.0, 0.75, 0.5])
    assert colors(twice, box) == pytest.approx(colors(picture, box))
    tiled = np.tile(picture, (2, 2, 1))
    assert colors(tiled, box / 2 + [0.25, 0, 0.25, 0])[:NUM_COLORS] == pytest.approx(
        colors(np.roll(picture, 10, axis=1), box)[:NUM_COLORS]
    )


def test_what_lies_outside_the_picture_does_not_count():
    picture = plain((200, 120, 90), 50, 50)
    for edge in ([0.0, 0.0, 0.2, 0.3], [0.8, 0.0, 1.0, 0.3], [0.8, 0.6, 1.0, 0.9]):
        face, shoulders = parts(picture, np.array(edge))
        assert face @ shoulders == pytest.approx(1)


@settings(deadline=None)
@given(shades, st.integers(1, 70), st.integers(1, 70))
def test_the_thumbnail_of_one_colour_is_that_colour(shade: tuple, height: int, width: int):
    assert (thumbnail(plain(shade, height, width)).reshape(64, 3) == shade).all()


def test_the_thumbnail_is_the_picture_row_by_row():
    small = noise(8, 8, 0)
    assert (thumbnail(small) == small.ravel()).all()
    assert (thumbnail(small.repeat(60, axis=0).repeat(80, axis=1)) == small.ravel()).all()


@settings(deadline=None)
@given(st.integers(0, 2**16))
def test_a_cell_of_the_thumbnail_is_the_mean_of_its_part(seed: int):
    picture = noise(64, 64, seed)
    means = picture.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3))
    assert np.abs(thumbnail(picture).reshape(8, 8, 3) - means).max() <= 0.5
