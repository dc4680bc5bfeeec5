"""Crops of faces for the encoder: boxes grown, cut out, letterboxed, normalised.

Source: paper (arXiv 2603.13056), section 3.2; spec section 3.2.
"""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
    height, width = picture.shape[:2]
    squares = np.zeros((len(box), side, side, 3), dtype=np.uint8)
    low = np.minimum((box[:, :2] * [width, height]).astype(int), [width - 1, height - 1])
    high = np.maximum(low + 1, np.round(box[:, 2:] * [width, height]).astype(int))
    for square, (left, top), (right, bottom) in zip(squares, low, high, strict=True):
        # The batch axis comes before the permutation, so that torch sees channels last, which is twice as fast.
        crop = torch.from_numpy(picture[None, top:bottom, left:right].copy()).permute(0, 3, 1, 2)  # (1, 3, h, w)
        scale = side / max(crop.shape[2:])
        size = [max(1, round(length * scale)) for length in crop.shape[2:]]
        scaled = functional.interpolate(crop, size, mode="bilinear", antialias=True).permute(0, 2, 3, 1)[0]
        y, x = (side - size[0]) // 2, (side - size[1]) // 2
        square[y : y + size[0], x : x + size[1]] = scaled.numpy()
    return squares


def normalise(crops: UInt8[Tensor, "B side side 3"]) -> Float[Tensor, "B 3 side side"]:
    """Computes ``(crop / 255 - mean) / std`` with ImageNet's mean and std; the result is channels last in memory."""
    side = crops.shape[2]
    mean, std = (torch.tensor(values, device=crops.device).repeat(side) for values in (IMAGENET_MEAN, IMAGENET_STD))
    rows = crops.flatten(
        2
    ).float()  # (B, side, side * 3): in place over whole rows, ten times as fast as over 3 channels
    torch.addcmul(-mean / std, rows, 1 / (255 * std), out=rows)
    return rows.unflatten(2, (side, 3)).permute(0, 3, 1, 2)
