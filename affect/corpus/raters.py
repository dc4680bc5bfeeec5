"""Several raters of the same tracks: how much they agree, and their mean.

Source: Grimm and Kroschel 2005, evaluator-weighted estimator.
Differs: a rater's weight is the mean correlation with the other raters, each at least 0, not with the mean of all.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from affect.concordance import Moments


class Agreement(NamedTuple):
    """Agreement of raters on valence and arousal, over the frames that both of a pair rated.

    Args:
        raters: names.
        pairwise: mean CCC of all pairs; NaN for one rater, or without a frame that two rated.
        with_rest: CCC of each rater with the mean of the others; NaN for one rater.
        weight: weight of each rater; sums to 1.
        rated: share of the rated frames that each rater rated.
    """

    raters: tuple[str, ...]
    pairwise: Float[ndarray, " 2"]
    with_rest: Float[ndarray, "raters 2"]
    weight: Float[ndarray, "raters 2"]
    rated: Float[ndarray, " raters"]


def agreement(tracks: Sequence[Mapping[str, Float[ndarray, "_ 2"]]], how: Literal["weighted", "mean"]) -> Agreement:
    """Measures the agreement over tracks, which need not all have the same raters.

    Args:
        tracks: ratings of every frame by rater, NaN where not rated.
        how: whether raters are weighted by their mean correlation with the others, or equally.
    """
    raters = tuple(sorted({rater for track in tracks for rater in track}))
    nothing = [np.full((len(next(iter(track.values()))), 2), np.nan) for track in tracks]
    values = np.stack(
        [np.concatenate([t.get(r, none) for t, none in zip(tracks, nothing, strict=True)]) for r in raters]
    )
    num = len(raters)
    pairs = {
        (i, j): (_ccc(values[i], values[j]), _correlation(values[i], values[j])) for i, j in combinations(range(num), 2)
    }
    with_rest = np.full((num, 2), np.nan)
    weight = np.ones((num, 2))
    for rater in range(num if num > 1 else 0):
        others = [found for pair, found in pairs.items() if rater in pair]
        with_rest[rater] = _ccc(mean_of(np.delete(values, rater, axis=0)), values[rater])
        if how == "weighted":
            weight[rater] = _mean([correlation.clip(min=0) for _, correlation in others])
    weight[:, weight.sum(axis=0) <= 0] = 1  # nobody agrees with anybody
    seen = ~np.isnan(values).any(axis=2)
    rated = seen.sum(axis=1) / max(1, seen.any(axis=0).sum())
    cccs = [ccc for ccc, _ in pairs.values() if not np.isnan(ccc).all()]
    pairwise = _mean(cccs) if cccs else np.full(2, np.nan)
    return Agreement(raters, pairwise, with_rest, weight / weight.sum(axis=0), rated)


def mean_of(
    values: Float[ndarray, "raters frames 2"], weight: Float[ndarray, "raters 2"] | None = None
) -> Float[ndarray, "frames 2"]:
    """Weighted mean of those who rated a frame, the plain one if all their weights are 0; NaN if nobody did.

    Args:
        values: ratings, NaN where not rated.
        weight: weight of each rater for each dimension; equal if None.
    """
    rated = ~np.isnan(values)
    shares = rated * (np.ones(values.shape[::2]) if weight is None else weight)[:, None]
    shares = np.where(shares.sum(axis=0) > 0, shares, rated)
    total = shares.sum(axis=0)
    mean = (np.where(rated, values, 0) * shares).sum(axis=0) / np.where(total > 0, total, 1)
    return np.where(total > 0, mean, np.nan)


def _ccc(x: Float[ndarray, "frames 2"], y: Float[ndarray, "frames 2"]) -> Float[ndarray, " 2"]:
    both = ~(np.isnan(x) | np.isnan(y)).any(axis=1)
    return Moments.of(x[both], y[both]).ccc()


def _correlation(x: Float[ndarray, "frames 2"], y: Float[ndarray, "frames 2"]) -> Float[ndarray, " 2"]:
    """Correlations; NaN without two frames or without variance."""
    both = ~(np.isnan(x) | np.isnan(y)).any(axis=1)
    of = Moments.of(x[both], y[both])
    scale = np.sqrt(of.m2_x * of.m2_y)
    return np.where(scale > 0, of.c_xy / np.where(scale > 0, scale, 1), np.nan)


def _mean(parts: Sequence[Float[ndarray, " 2"]]) -> Float[ndarray, " 2"]:
    """Mean of what is not NaN, 0 without any."""
    values = np.array(parts)
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(axis=0) / known.sum(axis=0).clip(min=1)
