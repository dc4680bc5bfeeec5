"""Waveform augmentation: what each change does to a sound, and where its randomness comes from."""

import pytest
import torch
from torch import Tensor

from affect.audio.augment import augment, band_limit, gain, reverb, white_noise
from affect.settings.models import Augment

NONE = Augment(gain=0.0, noise=0.0, band_limit=0.0, reverb=0.0)
ALL = Augment(gain=1.0, noise=1.0, band_limit=1.0, reverb=1.0)
CHANGES = {"gain": gain, "noise": white_noise, "band_limit": band_limit, "reverb": reverb}
SEEDS = range(20)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tone(length: int = 16_000) -> Tensor:
    return 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(length) / 16_000)


def db(ratio: Tensor) -> float:
    return 10 * float(torch.log10(ratio))


def test_the_same_generator_gives_the_same_sounds_and_the_input_stays() -> None:
    waveform, num_samples = 0.1 * torch.randn(4, 8_000), torch.tensor([8_000, 6_000, 500, 1])
    kept, state = waveform.clone(), torch.random.get_rng_state()
    first, second, other = (augment(waveform, num_samples, ALL, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(waveform, kept)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_each_segment_draws_for_itself() -> None:
    sounds = augment(tone().expand(6, -1), torch.full((6,), 16_000), ALL, seeded(0))
    for i in range(6):
        for j in range(i):
            assert not torch.allclose(sounds[i], sounds[j], atol=1e-3)


@pytest.mark.parametrize("chosen", [*([name] for name in CHANGES), list(CHANGES)])
def test_the_chosen_changes_are_made_in_their_order(chosen: list[str]) -> None:
    settings = Augment(**{name: float(name in chosen) for name in CHANGES})
    generator, expected = seeded(5), tone()
    for name, change in CHANGES.items():
        torch.rand((), generator=generator)  # the draw that decides
        if name in chosen:
            expected = change(expected, generator)
    sound = augment(tone()[None], torch.tensor([16_000]), settings, seeded(5))[0]
    torch.testing.assert_close(sound, expected.clamp(-1, 1))


def test_without_any_change_only_the_range_is_kept() -> None:
    waveform = torch.randn(3, 1_000)
    assert torch.equal(augment(waveform, torch.full((3,), 1_000), NONE, seeded(0)), waveform.clamp(-1, 1))


@pytest.mark.parametrize("seed", SEEDS)
def test_sounds_stay_finite_in_range_and_silent_past_their_length(seed: int) -> None:
    num_samples = torch.tensor([4_000, 2_500, 3, 2, 1, 0])
    padding = torch.arange(4_000) >= num_samples[:, None]
    sounds = augment(torch.randn(6, 4_000), num_samples, ALL, seeded(seed))
    assert sounds.isfinite().all()
    assert sounds.abs().max() <= 1
    assert not sounds[padding].any()


def test_silence_stays_silent() -> None:
    assert not augment(torch.zeros(2, 4_000), torch.tensor([4_000, 4_000]), ALL, seeded(0)).any()


def test_what_lies_past_the_end_is_not_heard() -> None:
    waveform, num_samples = 0.1 * torch.randn(2, 4_000), torch.tensor([2_000, 3_000])
    spoilt = waveform.masked_fill(torch.arange(4_000) >= num_samples[:, None], 1e6)
    ours, theirs = (augment(x, num_samples, ALL, seeded(0)) for x in (spoilt, waveform))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("change", "probability"), [("gain", 0.3), ("noise", 0.6), ("band_limit", 0.3), ("reverb", 0.2)]
)
def test_each_change_happens_as_often_as_its_probability_says(change: str, probability: float) -> None:
    settings = Augment(**{**dict.fromkeys(CHANGES, 0.0), change: probability})
    waveform = 0.1 * torch.randn(1_000, 64, generator=seeded(1))
    changed = (augment(waveform, torch.full((1_000,), 64), settings, seeded(0)) != waveform).any(dim=1)
    # Four standard deviations of a binomial share.
    assert changed.float().mean().item() == pytest.approx(
        probability, abs=4 * (probability * (1 - probability) / 1e3) ** 0.5
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_gain_scales_by_at_most_six_decibels(seed: int) -> None:
    x, y = tone(), gain(tone(), seeded(seed))
    factor = y[100] / x[100]
    torch.testing.assert_close(y, factor * x)
    assert abs(db(factor.square())) <= 6


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_is_8_to_25_decibels_below_the_sound(seed: int) -> None:
    x, y = tone(), white_noise(tone(), seeded(seed))
    # The power of 16,000 random samples is known to some .05 dB.
    assert 7.7 <= db(x.square().mean() / (y - x).square().mean()) <= 25.3


@pytest.mark.parametrize("seed", SEEDS)
def test_a_band_limit_passes_one_band_unchanged_and_stops_the_rest(seed: int) -> None:
    x = torch.randn(16_000, generator=seeded(100 + seed)).double()
    before, after = torch.fft.rfft(x), torch.fft.rfft(band_limit(x, seeded(seed)))
    kept = after.abs() > 1e-6
    torch.testing.assert_close(after[kept], before[kept])
    bins = kept.nonzero().flatten()
    assert len(bins) == bins[-1] - bins[0] + 1
    low, high = bins[0].item() / len(kept), (bins[-1].item() + 1) / len(kept)
    assert (low == 0 and 0.149 <= high <= 0.451) or (0.029 <= low <= 0.121 and 0.179 <= high <= 0.501)


def test_half_of_the_band_limits_are_low_passes() -> None:
    x, generator = torch.ones(200), seeded(0)  # a constant is in the lowest bin alone
    low_passes = sum(bool(band_limit(x, generator).any()) for _ in range(400))
    assert 160 <= low_passes <= 240


@pytest.mark.parametrize("seed", SEEDS)
def test_reverb_is_an_echo_of_50_to_200_milliseconds_that_cannot_be_louder(seed: int) -> None:
    click = torch.zeros(8_000).double()
    click[1_000] = 1.0
    y = reverb(click, seeded(seed))
    assert y[:1_000].abs().max() < 1e-9
    heard = (y.abs() > 1e-7).nonzero().flatten()
    assert 1_000 + 0.045 * 16_000 <= heard[-1] < 1_000 + 0.2 * 16_000
    # (1 - wet) of the click itself, and an echo whose L1 norm is wet.
    echo = y[1_001:].abs().sum()
    assert 0.09 <= echo <= 0.4
    assert 0.55 <= y[1_000] <= 0.95
    early, late = echo_halves(y[1_001 : heard[-1] + 1])
    assert early > late


def echo_halves(echo: Tensor) -> tuple[Tensor, Tensor]:
    half = len(echo) // 2
    return echo[:half].square().sum(), echo[half:].square().sum()


def test_reverb_is_the_convolution_written_out() -> None:
    x = torch.randn(700, generator=seeded(7)).double()
    click = torch.zeros(700).double()
    click[0] = 1.0
    response = reverb(click, seeded(3))  # the response to a click, cut at the sound's length
    expected = [sum(response[s] * x[t - s] for s in range(t + 1)) for t in range(0, 700, 70)]
    torch.testing.assert_close(reverb(x, seeded(3))[::70], torch.stack(expected))
