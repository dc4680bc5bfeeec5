"""Reaction times, found on expressions whose relation to the ratings is known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from affect.corpus.affwild2 import LabelError
from affect.corpus.ratings import Curve
from affect.tracks.lag import Motion, best_lag

FPS = 25.0


def recording(seed: int, lag_s: float, noise: float, seconds: float = 30.0) -> tuple[Motion, tuple[Curve, Curve], bool]:
    """A face whose coefficients follow two hidden curves, and 10 ratings a second of these, late and noisy."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(seconds * FPS)) / FPS
    hidden = gaussian_filter1d(rng.normal(size=(len(time_s), 2)), FPS, axis=0)
    hidden /= hidden.std(axis=0)
    mixing = np.random.default_rng(7).normal(size=(2, 52))
    values = hidden @ mixing + 0.3 * rng.normal(size=(len(time_s), 52)) + rng.normal(size=52)
    at = np.arange(0, seconds + lag_s, 0.1)
    late = [np.interp(at - lag_s, time_s, 0.3 * hidden[:, c]) + noise * rng.normal(size=len(at)) for c in range(2)]
    curves = [Curve(at, values_of) for values_of in late]
    return Motion(time_s, values, time_s), (curves[0], curves[1]), False


@pytest.mark.parametrize("lag_s", [0.0, 0.55, 2.0, 4.3])
def test_the_lag_of_a_rater_is_found(lag_s: float):
    found, best, flat = best_lag([recording(seed, lag_s, 0.1) for seed in range(4)], 1.0)
    assert found == pytest.approx(lag_s, abs=0.1) and best > flat + 0.1


def test_a_rater_who_follows_nothing_has_no_clear_lag():
    pairs = [(recording(seed, 0.0, 0.0)[0], recording(seed + 50, 0.0, 0.0)[1], False) for seed in range(20)]
    _, best, flat = best_lag(pairs, 1.0)
    assert best - flat < 0.05


def test_ten_seconds_are_needed():
    with pytest.raises(LabelError, match="less than ten seconds with a face: give a number"):
        best_lag([recording(0, 0.0, 0.0, seconds=6.0)], 1.0)
