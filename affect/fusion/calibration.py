"""Calibration: solves for the weights of :class:`affect.fusion.linear.LinearMap` by CCC, without gradients.

Everything is computed from second moments: one small matrix per video, width of the mean, and centring.

    z = [1; u; y]      u: inputs of the map after the centred mean, (D,);  y: annotated valence and arousal, (2,)
    S = sum over annotated frames of z z'                      (Z, Z), Z = D + 3

The direction of the map is a ridge regression on standardised inputs; its scale gives predictions the variance of the
annotations, which maximises CCC for a given direction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from affect.concordance import Moments, Score, difference, merge, score

CONSTANT = 1e-10
"""Inputs with a smaller variance have no weight."""


class Choice(NamedTuple):
    """Selected preparation of the inputs of a channel.

    Args:
        smooth_s: width of the centred mean in seconds.
        centered: whether the person's median is subtracted.
    """

    smooth_s: float
    centered: bool


class Map(NamedTuple):
    """A solved map ``y = offset + weight . u``, with weights of the inputs of :func:`moments`."""

    weight: Float[ndarray, " D"]
    offset: float


@dataclass(frozen=True)
class Calibration:
    """Result of a calibration.

    Args:
        choices: selected by folds of all training videos, for valence and arousal.
        maps: fitted on all training videos, for valence and arousal.
        score: CCC over folds, each frame by a map and a choice that never saw its video; None with fewer than three
            videos.
        gain: that score minus the untrained map's on the same frames; None without one of them.
    """

    choices: tuple[Choice, Choice]
    maps: tuple[Map, Map]
    score: Score | None
    gain: Score | None


def moments(u: Float[ndarray, "frames D"], gold: Float[ndarray, "frames 2"]) -> Float[ndarray, "Z Z"]:
    """S of one track: second moments over its annotated frames.

    Args:
        u: inputs of the map at every frame, finite.
        gold: annotations, NaN where there is none.
    """
    annotated = ~np.isnan(gold).any(axis=1)
    z = np.concatenate([np.ones((int(annotated.sum()), 1)), u[annotated], gold[annotated]], axis=1).astype(np.float64)
    return z.T @ z


def solve(s: Float[ndarray, "Z Z"], channel: int, ridge: float) -> Map:
    """The map of one channel.

        w_s = (R + ridge I)^-1 r,   w = sigma_y w_s / (sigma_u sqrt(w_s' R w_s)),   o = mean y - w . mean u

    R are the inputs' correlations, r their correlations with y.

    Args:
        s: S of the training videos.
        channel: 0 for valence, 1 for arousal.
        ridge: penalty.
    """
    mean, covariance = _centred(s)
    num = len(s) - 3
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0))
    used = np.flatnonzero(deviation[:num] ** 2 > CONSTANT)
    y = num + channel
    weight = np.zeros(num)
    if len(used) and deviation[y] ** 2 > CONSTANT:
        inner = covariance[np.ix_(used, used)] / np.outer(deviation[used], deviation[used])
        with_gold = covariance[used, y] / (deviation[used] * deviation[y])
        found = np.linalg.solve(inner + ridge * np.eye(len(used)), with_gold)
        spread = float(np.sqrt(found @ inner @ found))
        if spread > 0:
            weight[used] = deviation[y] / spread * found / deviation[used]
    return Map(weight, float(mean[y] - weight @ mean[:num]))


def agreement(s: Float[ndarray, "Z Z"], maps: Sequence[Map]) -> Moments:
    """Moments of annotations and predictions of both channels on videos with these S."""
    count = round(float(s[0, 0]))
    if not count:
        return Moments.of(np.empty((0, 2)), np.empty((0, 2)))
    mean, covariance = _centred(s)
    num = len(s) - 3
    weight = np.stack([m.weight for m in maps])  # (2, D)
    y = [num, num + 1]
    inputs, cross = covariance[:num, :num], covariance[:num, y]
    return Moments(
        count,
        mean[y],
        weight @ mean[:num] + [m.offset for m in maps],
        count * np.diag(covariance)[y],
        count * np.einsum("cd,de,ce->c", weight, inputs, weight).clip(min=0),
        count * np.einsum("cd,dc->c", weight, cross),
    )


def _centred(s: Float[ndarray, "Z Z"]) -> tuple[Float[ndarray, " Y"], Float[ndarray, "Y Y"]]:
    """Mean and covariance of [u; y]."""
    count = max(float(s[0, 0]), 1.0)
    mean = s[0, 1:] / count
    return mean, s[1:, 1:] / count - np.outer(mean, mean)


Grid = Mapping[Choice, Float[ndarray, "videos Z Z"]]
"""S of every training video, by choice."""


def calibrate(grid: Grid, folds: Sequence[Sequence[int]], ridge: float, untrained: Sequence[Moments]) -> Calibration:
    """Selects the choice of each channel by folds of videos, and fits the maps on all of them.

    The score is of nested folds: what a fold is scored with was selected and fitted on the others alone.

    Args:
        grid: S by choice; the first choice is taken where there are too few videos to select.
        folds: indices of videos; together all of them.
        ridge: penalty.
        untrained: moments of the untrained map on every video; empty if there is none.
    """
    choices = _select(grid, folds, ridge)
    everything = [index for fold in folds for index in fold]
    maps = _fit(grid, choices, everything, ridge)
    found, gain = None, None
    if len(folds) >= 3:
        units: dict[int, Moments] = {}
        for held_out in folds:
            others = [fold for fold in folds if fold is not held_out]
            chosen = _select(grid, others, ridge)
            fitted = _fit(grid, chosen, [index for fold in others for index in fold], ridge)
            for index in held_out:
                units[index] = _of_channels([agreement(grid[c][index], fitted) for c in chosen])
        videos = sorted(units)
        found = score([units[index] for index in videos])
        if len(untrained):
            gain = difference([units[index] for index in videos], [untrained[index] for index in videos])
    return Calibration(choices, maps, found, gain)


def _select(grid: Grid, folds: Sequence[Sequence[int]], ridge: float) -> tuple[Choice, Choice]:
    """The choice with the highest CCC over folds, for each channel; the first of equal ones."""
    if len(folds) < 2:
        first = next(iter(grid))
        return first, first
    reached: dict[Choice, ndarray] = {}
    for choice, s in grid.items():
        parts = []
        for held_out in folds:
            rest = s[[index for fold in folds if fold is not held_out for index in fold]].sum(axis=0)
            maps = [solve(rest, channel, ridge) for channel in range(2)]
            parts.append(agreement(s[list(held_out)].sum(axis=0), maps))
        reached[choice] = np.nan_to_num(merge(parts).ccc(), nan=-1.0)
    best = [max(reached, key=lambda choice: reached[choice][channel]) for channel in range(2)]
    return best[0], best[1]


def _fit(grid: Grid, choices: Sequence[Choice], videos: Sequence[int], ridge: float) -> tuple[Map, Map]:
    """Maps of both channels, fitted on some videos."""
    maps = [solve(grid[c][list(videos)].sum(axis=0), channel, ridge) for channel, c in enumerate(choices)]
    return maps[0], maps[1]


def _of_channels(parts: Sequence[Moments]) -> Moments:
    """Moments with valence of the first and arousal of the second."""
    names = ("mean_x", "mean_y", "m2_x", "m2_y", "c_xy")
    picked = {name: np.array([getattr(part, name)[channel] for channel, part in enumerate(parts)]) for name in names}
    return Moments(parts[0].count, **picked)


def choices(smooth_s: Sequence[float]) -> list[Choice]:
    """All choices, the untrained one first."""
    return [Choice(width, centered) for centered, width in product((False, True), smooth_s)]
