"""Lin's concordance correlation coefficient: from moments, merged over workers, as metric, loss and interval.

    CCC(x, y) = 2 cov(x, y) / (var x + var y + (mean x - mean y)^2)        population moments

Source: Lin 1989; the challenge's score is the mean of the CCC of valence and of arousal over all annotated frames of
all videos concatenated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from affect.config import Loss

LOSS_EPSILON = 1e-8


def _concordance(var_x: Any, var_y: Any, cov: Any, bias: Any, epsilon: float = 0.0) -> Any:  # noqa: ANN401
    """The equation, for floats, arrays and tensors alike."""
    return 2 * cov / (var_x + var_y + bias * bias + epsilon)


@dataclass(frozen=True)
class Moments:
    """Centred sums of gold x and predicted y per dimension, float64; parts merge exactly.

    Args:
        count: points.
        mean_x: mean of the gold values, (2,).
        mean_y: mean of the predictions, (2,).
        m2_x: sum of squared deviations of x, (2,).
        m2_y: sum of squared deviations of y, (2,).
        c_xy: sum of products of deviations, (2,).
    """

    count: int
    mean_x: ndarray
    mean_y: ndarray
    m2_x: ndarray
    m2_y: ndarray
    c_xy: ndarray

    @classmethod
    def of(cls, gold: Float[ndarray, "frames 2"], predicted: Float[ndarray, "frames 2"]) -> "Moments":
        """Moments over the annotated frames, those whose gold value is not NaN.

        Raises:
            ValueError: an annotated frame has no finite prediction.
        """
        annotated = ~np.isnan(gold).any(axis=1)
        x, y = gold[annotated].astype(np.float64), predicted[annotated].astype(np.float64)
        missing = ~np.isfinite(y).all(axis=1)
        if missing.any():
            frame = int(np.flatnonzero(annotated)[missing.argmax()])
            raise ValueError(f"{missing.sum()} annotated frames have no prediction, the first is frame {frame}")
        if len(x) == 0:
            zero = np.zeros(gold.shape[1])
            return cls(0, zero, zero, zero, zero, zero)
        mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
        dx, dy = x - mean_x, y - mean_y
        return cls(len(x), mean_x, mean_y, (dx * dx).sum(axis=0), (dy * dy).sum(axis=0), (dx * dy).sum(axis=0))

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both parts together.

        Source: Chan, Golub and LeVeque 1983, pairwise update.
        """
        count = self.count + other.count
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        share = other.count / count
        step_x, step_y = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        weight = self.count * share
        return Moments(
            count,
            self.mean_x + step_x * share,
            self.mean_y + step_y * share,
            self.m2_x + other.m2_x + step_x * step_x * weight,
            self.m2_y + other.m2_y + step_y * step_y * weight,
            self.c_xy + other.c_xy + step_x * step_y * weight,
        )

    def ccc(self) -> Float[ndarray, " 2"]:
        """CCC of valence and of arousal; NaN without points or when both sides are the same constant."""
        n = max(self.count, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return _concordance(self.m2_x / n, self.m2_y / n, self.c_xy / n, self.mean_x - self.mean_y)


def merge(parts: Sequence[Moments]) -> Moments:
    """Moments of all parts together; one or more."""
    return reduce(Moments.merge, parts)


def ccc(gold: Float[ndarray, "frames 2"], predicted: Float[ndarray, "frames 2"]) -> Float[ndarray, " 2"]:
    """CCC of valence and of arousal over the annotated frames.

    Args:
        gold: annotations, NaN where there is none.
        predicted: predictions, finite wherever gold is.

    Returns:
        Two numbers in [-1, 1].

    Raises:
        ValueError: an annotated frame has no prediction.
    """
    return Moments.of(gold, predicted).ccc()


@dataclass(frozen=True)
class Score:
    """Challenge score of a set of tracks with its bootstrap interval.

    Args:
        ccc: valence, arousal and their mean, (3,).
        low: lower ends of the 95 % intervals, (3,); NaN for one track, which says nothing of others.
        high: upper ends, (3,).
        num_frames: annotated frames.
        num_tracks: tracks.
    """

    ccc: ndarray
    low: ndarray
    high: ndarray
    num_frames: int
    num_tracks: int


def score(tracks: Sequence[Moments], *, num_resamples: int = 2000, seed: int = 0) -> Score:
    """Score all frames of all tracks concatenated, with a percentile bootstrap over tracks.

    Whole tracks are drawn with replacement, since frames of one track are not independent.

    Args:
        tracks: moments of each track; tracks without an annotated frame are left out.
        num_resamples: bootstrap resamples.
        seed: seed of the resampling.

    Returns:
        CCC valence, arousal, mean, and the 2.5 % and 97.5 % percentiles of each.

    Raises:
        ValueError: no track has an annotated frame.
    """
    tracks = [t for t in tracks if t.count]
    if not tracks:
        raise ValueError("no annotated frame to score on")
    whole = merge(tracks)
    ccc_of_all, unknown = _with_mean(whole.ccc()), np.full(3, np.nan)
    if len(tracks) == 1:
        return Score(ccc_of_all, unknown, unknown, whole.count, 1)
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, len(tracks), (num_resamples, len(tracks)))
    samples = np.array([_with_mean(merge([tracks[i] for i in draw]).ccc()) for draw in draws])
    low, high = np.nanpercentile(samples, [2.5, 97.5], axis=0)
    return Score(ccc_of_all, low, high, whole.count, len(tracks))


def _with_mean(values: Float[ndarray, " 2"]) -> Float[ndarray, " 3"]:
    return np.append(values, values.mean())


def masked_ccc(
    gold: Float[Tensor, "*rows points 2"],
    predicted: Float[Tensor, "*rows points 2"],
    mask: Bool[Tensor, "*rows points"],
) -> Float[Tensor, "*rows 2"]:
    """Differentiable CCC over the masked-in points of each row, 1e-8 in the denominator."""
    weight = mask.unsqueeze(-1).to(predicted.dtype)
    count = weight.sum(dim=-2).clamp(min=1)
    gold = torch.where(mask.unsqueeze(-1), gold, 0)
    predicted = torch.where(mask.unsqueeze(-1), predicted, 0)
    mean_x, mean_y = gold.sum(dim=-2) / count, predicted.sum(dim=-2) / count
    dx = (gold - mean_x.unsqueeze(-2)) * weight
    dy = (predicted - mean_y.unsqueeze(-2)) * weight
    var_x, var_y, cov = (part.sum(dim=-2) / count for part in (dx * dx, dy * dy, dx * dy))
    return _concordance(var_x, var_y, cov, mean_x - mean_y, LOSS_EPSILON)


def hybrid_loss(
    gold: Float[Tensor, "B T 2"], predicted: Float[Tensor, "B T 2"], annotated: Bool[Tensor, "B T"], settings: Loss
) -> Float[Tensor, ""] | None:
    """Weighted ``1 - CCC`` of both dimensions plus a pointwise term, in float32 or wider.

        (w_v (1 - CCC_v) + w_a (1 - CCC_a)) / (w_v + w_a) + lambda error

    Args:
        gold: annotations; values where ``annotated`` is false are never read.
        predicted: predictions.
        annotated: which points count.
        settings: weights, what a CCC runs over, the pointwise term.

    Returns:
        The loss, or None when the batch has no annotated point (it is then skipped). With fewer than ``min_points``
        points the pointwise term alone, unweighted.

    Source: paper, section 3.5; windows without an annotated frame are left out of the mean over windows.
    """
    if not annotated.any():
        return None
    predicted = predicted.float() if predicted.dtype in (torch.float16, torch.bfloat16) else predicted
    difference = predicted[annotated] - gold[annotated]
    error = difference.abs().mean() if settings.error == "mae" else difference.square().mean()
    if settings.ccc_over == "batch":
        if annotated.sum() < settings.min_points:
            return error
        concordance = masked_ccc(gold.flatten(0, 1), predicted.flatten(0, 1), annotated.flatten())
    else:
        used = annotated.any(dim=1)
        concordance = masked_ccc(gold[used], predicted[used], annotated[used]).mean(dim=0)
    weight = concordance.new_tensor([settings.valence_weight, settings.arousal_weight])
    return (weight * (1 - concordance)).sum() / weight.sum() + settings.error_weight * error
