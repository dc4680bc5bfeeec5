"""Waveform augmentation: gain, white noise, band limit and reverb, each with its own probability per segment.

Source: paper (arXiv 2603.13056), section 3.4; spec section 5.6. The ranges are those of the authors' code.
"""

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
    """Changes each segment at random: gain, noise, band limit, reverb, in this order, then clamps to [-1, 1].

    Args:
        waveform: 16 kHz mono in [-1, 1], padded at its end.
        num_samples: true length of each segment; samples past it become 0.
        settings: probability of each change, per segment.
        generator: source of all random numbers; every segment has its own draws.

    Returns:
        A changed copy.
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
    """Amplifies by dB ~ U(-6, 6): ``10^(dB / 20) x``."""
    return 10 ** (_uniform(GAIN_DB, generator) / 20) * x


def white_noise(x: Samples, generator: torch.Generator) -> Samples:
    """Adds white noise n ~ N(0, 1) at a signal-to-noise ratio dB ~ U(8, 25): ``x + rms(x) 10^(-dB / 20) n``."""
    level = x.square().mean().sqrt() * 10 ** (-_uniform(NOISE_SNR_DB, generator) / 20)
    return x + level * _normal(len(x), x, generator)


def band_limit(x: Samples, generator: torch.Generator) -> Samples:
    """Keeps a part of the spectrum: with probability .5 a low-pass, else a band-pass."""
    spectrum = torch.fft.rfft(x)
    if _uniform((0.0, 1.0), generator) < 0.5:
        low, high = 0.0, _uniform(LOW_PASS_SHARE, generator)
    else:
        low, high = _uniform(BAND_LOW_SHARE, generator), _uniform(BAND_HIGH_SHARE, generator)
    share = torch.arange(len(spectrum), device=x.device) / len(spectrum)
    return torch.fft.irfft(spectrum * ((share >= low) & (share < high)), n=len(x))


def reverb(x: Samples, generator: torch.Generator) -> Samples:
    """Mixes in reverberation by a random impulse response r of 50 to 200 ms.

    r_t = n_t exp(-decay t / length);   y = (1 - wet) x + wet (x * r / |r|_1)          * is convolution
    """
    length = round(_uniform(REVERB_S, generator) * SAMPLE_RATE_HZ)
    decay, wet = _uniform(REVERB_DECAY, generator), _uniform(REVERB_WET, generator)
    room = _normal(length, x, generator) * torch.exp(-decay * torch.arange(length, device=x.device) / length)
    room = room / room.abs().sum()
    size = 2 ** math.ceil(math.log2(len(x) + length))  # avoids circular wrap-around
    echo = torch.fft.irfft(torch.fft.rfft(x, size) * torch.fft.rfft(room, size), size)[: len(x)]
    return (1 - wet) * x + wet * echo


def _uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    low, high = bounds
    return low + (high - low) * torch.rand((), generator=generator, device=generator.device).item()


def _normal(count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(count, generator=generator, device=generator.device).to(like)
