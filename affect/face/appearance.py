"""Appearance of a person without an identity model: colour histograms of face and shoulders; picture thumbnails."""

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

BINS = (7, 7, 3)
"""Bins of the red-green axis, the yellow-blue axis, and lightness."""
CHROMA_RANGE = 0.25
"""Chroma (at most 1) beyond this value falls into the outermost bins."""
SAMPLES = 24
"""Pixels of a region are sampled on a grid of at most this many rows and columns."""
THUMBNAIL = 8
"""Side of the picture's thumbnail in pixels."""
NUM_COLORS = BINS[0] * BINS[1] * BINS[2]
"""Bins of one histogram."""


def colors(picture: UInt8[ndarray, "H W 3"], box: Float[ndarray, " 4"]) -> Float[ndarray, " D"]:
    """Computes colour histograms of a face and of the shoulders below it (twice as wide, .8 as high).

        f_b = sqrt(n_b / sum n)          n_b: pixels of the region in bin b

    The dot product of two such histograms is Bhattacharyya's coefficient, 1 for the same colours.

    Args:
        picture: RGB.
        box: the face; left, top, right, bottom as shares of width and height.

    Returns:
        ``[f_face; f_shoulders]``; a part is 0 if its region lies outside the picture.
    """
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    shoulders = (left - 0.5 * width, bottom, right + 0.5 * width, bottom + 0.8 * height)
    regions = [np.array(region).clip(0, 1) for region in (box, shoulders)]
    return np.concatenate([np.sqrt(_histogram(_pixels(picture, region))) for region in regions])


def thumbnail(picture: UInt8[ndarray, "H W 3"]) -> UInt8[ndarray, " 192"]:
    """Downscales the picture to 8 x 8 RGB, row by row; a large change between frames is a scene cut."""
    per_cell = 8
    rows, columns = ((np.arange(THUMBNAIL * per_cell) + 0.5) / (THUMBNAIL * per_cell) * n for n in picture.shape[:2])
    sampled = picture[rows.astype(int)][:, columns.astype(int)].reshape(THUMBNAIL, per_cell, THUMBNAIL, per_cell, 3)
    return sampled.mean(axis=(1, 3)).round().astype(np.uint8).ravel()


def _pixels(picture: UInt8[ndarray, "H W 3"], region: Float[ndarray, " 4"]) -> Float[ndarray, "pixels 3"]:
    height, width = picture.shape[:2]
    left, top, right, bottom = (region * [width, height, width, height]).astype(int)
    part = picture[top:bottom, left:right]
    steps = [max(1, -(-n // SAMPLES)) for n in part.shape[:2]]
    return part[:: steps[0], :: steps[1]].reshape(-1, 3).astype(np.float64)


def _histogram(pixels: Float[ndarray, "pixels 3"]) -> Float[ndarray, " bins"]:
    """Shares of the bins. Each pixel is split over its 8 neighbouring bins by trilinear weights."""
    if not len(pixels):
        return np.zeros(NUM_COLORS)
    red, green, blue = (pixels + 1).T
    total = red + green + blue
    chroma = np.stack([red - green, (red + green) / 2 - blue]) / total
    bins = np.array(BINS)[:, None]
    position = np.stack([*(chroma / CHROMA_RANGE / 2 + 0.5), total / (3 * 256)]).clip(0, 1) * (bins - 1)
    low = np.minimum(position.astype(int), bins - 2)
    share = position - low
    (a, b, c), (u, v, w) = ((np.stack([x, x + 1]) for x in low), (np.stack([1 - x, x]) for x in share))
    index = (a[:, None, None] * BINS[1] + b[None, :, None]) * BINS[2] + c[None, None]  # (2, 2, 2, pixels)
    weight = u[:, None, None] * v[None, :, None] * w[None, None]
    return np.bincount(index.ravel(), weight.ravel(), NUM_COLORS) / len(pixels)
