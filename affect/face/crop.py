"""Crops of faces for the encoder: boxes grown, cut out, letterboxed or squashed, normalised.

Source: paper (arXiv 2603.13056), section 3.2; spec section 3.2.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Crop(NamedTuple):
    """Crop of a face that an encoder reads.

    Args:
        side_px: side of the square in pixels.
        squash: whether the box is stretched to the square; else its longest side fits and the rest is black.
        margin: share of width and height that the detected box is grown by on each side; None for the setting
            ``box_growth``.
    """

    side_px: int
    squash: bool = False
    margin: float | None = None

    def __call__(
        self, picture: UInt8[ndarray, "H W 3"], detected: Float[ndarray, "faces 4"], grown: Float[ndarray, "faces 4"]
    ) -> UInt8[ndarray, "faces side side 3"]:
        """Crops faces.

        Args:
            picture: RGB.
            detected: boxes of the detector; left, top, right, bottom as shares of width and height.
            grown: those boxes, grown by the setting ``box_growth``.
        """
        box = grown if self.margin is None else grow(detected, self.margin)
        return (squash if self.squash else letterbox)(picture, box, self.side_px)


def grow(box: Float[ndarray, "faces 4"], share: float) -> Float[ndarray, "faces 4"]:
    """Grows boxes on each side by a share of their width and height; clips them to the picture."""
    margin = share * (box[:, 2:] - box[:, :2])
    return np.concatenate([box[:, :2] - margin, box[:, 2:] + margin], axis=1).clip(0, 1)


def letterbox(
    picture: UInt8[ndarray, "H W 3"], box: Float[ndarray, "faces 4"], side: int
) -> UInt8[ndarray, "faces side side 3"]:
    """Cuts boxes out, scales the longest side to ``side`` px bilinearly, and centres each on a black square.

    Args:
        picture: RGB.
        box: left, top, right, bottom as shares of width and height.
        side: side of the square in pixels.

    Returns:
        RGB crops, one per box.
    """
    squares = np.zeros((len(box), side, side, 3), dtype=np.uint8)
    for square, part in zip(squares, _cut(picture, box), strict=True):
        scale = side / max(part.shape[2:])
        size = [max(1, round(length * scale)) for length in part.shape[2:]]
        y, x = (side - size[0]) // 2, (side - size[1]) // 2
        square[y : y + size[0], x : x + size[1]] = _scaled(part, size)
    return squares


def squash(
    picture: UInt8[ndarray, "H W 3"], box: Float[ndarray, "faces 4"], side: int
) -> UInt8[ndarray, "faces side side 3"]:
    """Cuts boxes out and scales both sides to ``side`` px bilinearly; arguments as of :func:`letterbox`."""
    squares = np.empty((len(box), side, side, 3), dtype=np.uint8)
    for square, part in zip(squares, _cut(picture, box), strict=True):
        square[:] = _scaled(part, [side, side])
    return squares


def _cut(picture: UInt8[ndarray, "H W 3"], box: Float[ndarray, "faces 4"]) -> Iterator[UInt8[Tensor, "1 3 h w"]]:
    """Pixels of each box, at least one."""
    height, width = picture.shape[:2]
    low = np.minimum((box[:, :2] * [width, height]).astype(int), [width - 1, height - 1])
    high = np.maximum(low + 1, np.round(box[:, 2:] * [width, height]).astype(int))
    for (left, top), (right, bottom) in zip(low, high, strict=True):
        # The batch axis comes before the permutation, so that torch sees channels last, which is twice as fast.
        yield torch.from_numpy(picture[None, top:bottom, left:right].copy()).permute(0, 3, 1, 2)


def _scaled(part: UInt8[Tensor, "1 3 h w"], size: list[int]) -> UInt8[ndarray, "H W 3"]:
    return functional.interpolate(part, size, mode="bilinear", antialias=True).permute(0, 2, 3, 1)[0].numpy()


def normalise(crops: UInt8[Tensor, "B side side 3"]) -> Float[Tensor, "B 3 side side"]:
    """Computes ``(crop / 255 - mean) / std`` with ImageNet's mean and std; the result is channels last in memory."""
    side = crops.shape[2]
    mean, std = (torch.tensor(values, device=crops.device).repeat(side) for values in (IMAGENET_MEAN, IMAGENET_STD))
    rows = crops.flatten(
        2
    ).float()  # (B, side, side * 3): in place over whole rows, ten times as fast as over 3 channels
    torch.addcmul(-mean / std, rows, 1 / (255 * std), out=rows)
    return rows.unflatten(2, (side, 3)).permute(0, 3, 1, 2)
