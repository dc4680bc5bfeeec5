"""Augmentation of face crops: mirror, turn, scale, shift, light, colour, erased patches; every crop draws its own.

torchvision.transforms.v2 draws once for a whole batch, and from the process' own generator: training could neither be
batched nor gone on with bit by bit.
"""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from affect.settings.encoder import CropAugment

GREY = (0.299, 0.587, 0.114)
"""Luma of RGB."""


def augment(
    crops: UInt8[Tensor, "B side side 3"], settings: CropAugment, generator: torch.Generator
) -> UInt8[Tensor, "B side side 3"]:
    """Change each crop at random; what comes from outside it is black, as around a letterboxed face.

    Args:
        crops: RGB.
        settings: how much.
        generator: the only source of randomness, on the CPU.

    Source: the usual recipe of face affect recognition; the paper does not give its own.
    """
    x = crops.permute(0, 3, 1, 2).float() / 255  # (B, 3, side, side)
    x = _lit(x, settings, generator) * (x.amax(dim=1, keepdim=True) > 0)  # what lies around the face stays black
    x = _moved(x, settings, generator)
    x = _erased(x, settings, generator)
    return (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def _uniform(count: int, low: float, high: float, generator: torch.Generator, like: Tensor) -> Float[Tensor, " B"]:
    return (low + (high - low) * torch.rand(count, generator=generator)).to(like.device)


def _moved(
    x: Float[Tensor, "B 3 side side"], settings: CropAugment, generator: torch.Generator
) -> Float[Tensor, "B 3 side side"]:
    """Mirror, turn, scale and shift, in one bilinear resampling."""
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


def _lit(
    x: Float[Tensor, "B 3 side side"], settings: CropAugment, generator: torch.Generator
) -> Float[Tensor, "B 3 side side"]:
    """Brightness, contrast about the mean, saturation; some crops lose all colour."""
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


def _erased(
    x: Float[Tensor, "B 3 side side"], settings: CropAugment, generator: torch.Generator
) -> Float[Tensor, "B 3 side side"]:
    """Black out a rectangle of a tenth to a third of each side, in some crops."""
    num, side = len(x), x.shape[-1]
    size = [_uniform(num, 0.1, 0.33, generator, x) for _ in range(2)]
    start = [_uniform(num, 0.0, 1.0, generator, x) * (1 - length) for length in size]
    place = (torch.arange(side, device=x.device) + 0.5) / side
    rows, columns = ((place >= s[:, None]) & (place < (s + n)[:, None]) for s, n in zip(start, size, strict=True))
    hit = _uniform(num, 0.0, 1.0, generator, x) < settings.erase
    return x.masked_fill((rows[:, :, None] & columns[:, None, :] & hit[:, None, None])[:, None], 0.0)
