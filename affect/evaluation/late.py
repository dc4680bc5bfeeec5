"""Late fusion: convex weights over predictions, fitted on some videos and applied to others."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.optimize import minimize

from affect.concordance import concordance


def fit(
    gold: Float[ndarray, "frames 2"], predictions: Float[ndarray, "systems frames 2"]
) -> Float[ndarray, "systems 2"]:
    """Weights that maximise the CCC between the weighted mean of the predictions and the gold values.

        max over w of CCC(gold, sum over s of w_s p_s),   w_s >= 0,   sum of w = 1        per dimension

    Args:
        gold: annotations, NaN where there is none.
        predictions: predictions of each system, finite wherever gold is.

    Returns:
        Weights of valence and of arousal; each column sums to 1.

    Raises:
        ValueError: nothing is annotated, or the annotations are constant (CCC does not depend on the weights).

    Source: spec section 8 (late fusion).
    """
    annotated = ~np.isnan(gold).any(axis=1)
    if not annotated.any() or (np.ptp(gold[annotated], axis=0) == 0).any():
        raise ValueError("late fusion has nothing to fit on: the gold values are missing or constant")
    parts = (_fit_one(gold[annotated, i], predictions[:, annotated, i]) for i in range(2))
    return np.stack(list(parts), axis=1)


def _fit_one(
    gold: Float[ndarray, " frames"], predictions: Float[ndarray, "systems frames"]
) -> Float[ndarray, " systems"]:
    """Weights of one dimension. CCC is computed from means and covariances alone, so each step is cheap."""
    num = len(predictions)
    moments = np.cov(np.concatenate([gold[None], predictions]), bias=True)  # (1 + systems, 1 + systems)
    means = predictions.mean(axis=1)

    def disagreement(w: ndarray) -> float:
        bias = gold.mean() - w @ means
        return -float(concordance(moments[0, 0], w @ moments[1:, 1:] @ w, w @ moments[0, 1:], bias))

    starts = [np.full(num, 1 / num), *np.eye(num)]
    simplex = {"type": "eq", "fun": lambda w: w.sum() - 1}
    found = [minimize(disagreement, w, method="SLSQP", bounds=[(0, 1)] * num, constraints=simplex).x for w in starts]
    best = min([*found, *starts], key=disagreement).clip(min=0)
    return best / best.sum()


def combine(
    weights: Float[ndarray, "systems 2"], predictions: Float[ndarray, "systems frames 2"]
) -> Float[ndarray, "frames 2"]:
    """Weighted mean of the systems' predictions."""
    return np.einsum("sd,sfd->fd", weights, predictions)


def combine_unseen(
    golds: Mapping[str, Float[ndarray, "_ 2"]], predictions: Mapping[str, ndarray], folds: Sequence[set[str]]
) -> tuple[dict[str, ndarray], Float[ndarray, "systems 2"]]:
    """Cross-fitted late fusion: each fold of videos gets weights fitted on the other folds.

    Args:
        golds: annotations by video.
        predictions: (systems, frames, 2) by video.
        folds: two or more disjoint sets of videos that contain all videos.

    Returns:
        Fused predictions (frames, 2) by video, and the mean of the folds' weights.
    """
    fused: dict[str, ndarray] = {}
    found = []
    for held_out in folds:
        known = [video for video in golds if video not in held_out]
        gold = np.concatenate([golds[video] for video in known])
        weights = fit(gold, np.concatenate([predictions[video] for video in known], axis=1))
        fused |= {video: combine(weights, predictions[video]) for video in held_out}
        found.append(weights)
    return fused, np.mean(found, axis=0)
