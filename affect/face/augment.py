"""Augmentation of face crops: flip, rotation, scale, shift, light, colour, erased patches, drawn per crop.

torchvision.transforms.v2 draws once per batch and from the global generator: crops of a batch would share one change,
and a resumed training would not repeat its draws.
"""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from affect.settings.encoder import CropAugment

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma (ITU-R BT.601)."""


def augment(
    crops: UInt8[Tensor, "B side side 3"], settings: CropAugment, generator: torch.Generator
) -> UInt8[Tensor, "B side side 3"]:
    """Changes each crop at random; pixels from outside the crop are black, as around a letterboxed face.

    Args:
        crops: RGB.
        settings: ranges and probabilities.
        generator: source of all random numbers, on the CPU.

    Source: common practice in face affect recognition; the paper gives no augmentation of the encoder.
    """
    x = crops.permute(0, 3, 1, 2).float() / 255  # (B, 3, side, side)
    x = _jitter_color(x, settings, generator) * (x.amax(dim=1, keepdim=True) > 0)  # the black border stays black
    x = _warp(x, settings, generator)
    x = _erase(x, settings, generator)
    return (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def _uniform(count: int, low: float, high: float, generator: torch.Generator, like: Tensor) -> Float[Tensor, " B"]:
    return (low + (high - low) * torch.rand(count, generator=generator)).to(like.device)


def _warp(
    x: Float[Tensor, "B 3 side side"], settings: CropAugment, generator: torch.Generator
) -> Float[Tensor, "B 3 side side"]:
    """Flips, rotates, scales and shifts in one bilinear resampling."""
    num = len(x)
    turn = math.radians(settings.turn_deg)
    angle = _uniform(num, -turn, turn, generator, x)
    scale = _uniform(num, 1 - settings.scale, 1 + settings.scale, generator, x)
    mirror = 1 - 2 * (_uniform(num, 0.0, 1.0, generator, x) < settings.mirror).float()
    shift = [_uniform(num, -settings.shift, settings.shift, generator, x) for _ in range(2)]
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = [torch.stack([mirror * cos, -sin, shift[0]], dim=1), torch.stack([mirror * sin, cos, shift[1]], dim=1)]
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


def _jitter_color(
    x: Float[Tensor, "B 3 side side"], settings: CropAugment, generator: torch.Generator
) -> Float[Tensor, "B 3 side side"]:
    """Changes brightness, contrast (about the mean) and saturation; makes some crops grey."""
    num = len(x)
    factors = [
        _uniform(num, 1 - amount, 1 + amount, generator, x)[:, None, None, None]
        for amount in (settings.brightness, settings.contrast, settings.saturation)
    ]
    colorless = _uniform(num, 0.0, 1.0, generator, x)[:, None, None, None] < settings.grey
    x = x * factors[0]
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = mean + (x - mean) * factors[1]
    grey = (x * torch.tensor(GREY, device=x.device)[:, None, None]).sum(dim=1, keepdim=True)
    return grey + (x - grey) * torch.where(colorless, 0, factors[2])


def _erase(
    x: Float[Tensor, "B 3 side side"], settings: CropAugment, generator: torch.Generator
) -> Float[Tensor, "B 3 side side"]:
    """Blacks out a rectangle of .1 to .33 of each side in some crops."""
    num, side = len(x), x.shape[-1]
    size = [_uniform(num, 0.1, 0.33, generator, x) for _ in range(2)]
    start = [_uniform(num, 0.0, 1.0, generator, x) * (1 - length) for length in size]
    place = (torch.arange(side, device=x.device) + 0.5) / side
    rows, columns = ((place >= s[:, None]) & (place < (s + n)[:, None]) for s, n in zip(start, size, strict=True))
    hit = _uniform(num, 0.0, 1.0, generator, x) < settings.erase
    return x.masked_fill((rows[:, :, None] & columns[:, None, :] & hit[:, None, None])[:, None], 0.0)
