"""Waveform augmentation: gain, white noise, band limit and reverb, each with its own probability per segment."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affect.settings.models import Augment

SAMPLE_RATE_HZ = 16_000  # what WavLM was trained on
GAIN_DB = (-6.0, 6.0)
NOISE_SNR_DB = (8.0, 25.0)
LOW_PASS_SHARE = (0.15, 0.45)  # shares of the spectrum's bins, here and below
BAND_LOW_SHARE = (0.03, 0.12)
BAND_HIGH_SHARE = (0.18, 0.50)
REVERB_S = (0.05, 0.20)
REVERB_DECAY = (2.0, 8.0)
REVERB_WET = (0.1, 0.4)

Samples = Float[Tensor, " samples"]


def augment(
    waveform: Float[Tensor, "B samples"],
    num_samples: Int[Tensor, " B"],
    settings: Augment,
    generator: torch.Generator,
) -> Float[Tensor, "B samples"]:
    """Change each segment at random: gain, noise, band limit, reverb, in this order, then clamp to [-1, 1].

    Args:
        waveform: 16 kHz mono in [-1, 1], padded at its end.
        num_samples: true length of each; what lies past it becomes 0.
        settings: probability of each change, per segment.
        generator: the only source of randomness; every segment draws for itself.

    Returns:
        The changed segments; the input is not touched.

    Source: paper (arXiv 2603.13056), audio model; the ranges are the authors' code's.
    """
    changes: tuple[tuple[float, Callable[[Samples, torch.Generator], Samples]], ...] = (
        (settings.gain, gain),
        (settings.noise, white_noise),
        (settings.band_limit, band_limit),
        (settings.reverb, reverb),
    )
    augmented = torch.zeros_like(waveform)
    for row, length in enumerate(num_samples.tolist()):
        x = waveform[row, :length]
        for probability, change in changes:
            if length > 0 and _uniform((0.0, 1.0), generator) < probability:
                x = change(x, generator)
        augmented[row, :length] = x.clamp(-1, 1)
    return augmented


def gain(x: Samples, generator: torch.Generator) -> Samples:
    """Amplify by U(-6, 6) dB: ``10^(dB / 20) x``."""
    return 10 ** (_uniform(GAIN_DB, generator) / 20) * x


def white_noise(x: Samples, generator: torch.Generator) -> Samples:
    """Add white noise n at a signal-to-noise ratio of U(8, 25) dB: ``x + rms(x) 10^(-dB / 20) n``."""
    level = x.square().mean().sqrt() * 10 ** (-_uniform(NOISE_SNR_DB, generator) / 20)
    return x + level * _normal(len(x), x, generator)


def band_limit(x: Samples, generator: torch.Generator) -> Samples:
    """Keep a part of the spectrum: half the time its lowest bins, half the time a band."""
    spectrum = torch.fft.rfft(x)
    if _uniform((0.0, 1.0), generator) < 0.5:
        low, high = 0.0, _uniform(LOW_PASS_SHARE, generator)
    else:
        low, high = _uniform(BAND_LOW_SHARE, generator), _uniform(BAND_HIGH_SHARE, generator)
    share = torch.arange(len(spectrum), device=x.device) / len(spectrum)
    return torch.fft.irfft(spectrum * ((share >= low) & (share < high)), n=len(x))


def reverb(x: Samples, generator: torch.Generator) -> Samples:
    """Mix in the echo of a random room: decaying noise r, 50 to 200 ms long, with an L1 norm of 1.

    r_t = n_t exp(-decay t / length),   (1 - wet) x + wet (x * r / |r|_1)
    """
    length = round(_uniform(REVERB_S, generator) * SAMPLE_RATE_HZ)
    decay, wet = _uniform(REVERB_DECAY, generator), _uniform(REVERB_WET, generator)
    room = _normal(length, x, generator) * torch.exp(-decay * torch.arange(length, device=x.device) / length)
    room = room / room.abs().sum()
    size = 2 ** math.ceil(math.log2(len(x) + length))  # long enough that the convolution does not wrap around
    echo = torch.fft.irfft(torch.fft.rfft(x, size) * torch.fft.rfft(room, size), size)[: len(x)]
    return (1 - wet) * x + wet * echo


def _uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    low, high = bounds
    return low + (high - low) * torch.rand((), generator=generator, device=generator.device).item()


def _normal(count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(count, generator=generator, device=generator.device).to(like)
