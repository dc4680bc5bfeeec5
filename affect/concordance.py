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


CONSTANT = 1e-12
"""Labels whose variance is below this are one number: their CCC is undefined."""


def concordance(var_x: Any, var_y: Any, cov: Any, bias: Any, epsilon: float = 0.0) -> Any:  # noqa: ANN401
    """The equation, for floats, arrays and tensors alike.

    Args:
        var_x: variance of the gold values.
        var_y: variance of the predictions.
        cov: their covariance.
        bias: difference of their means.
        epsilon: added to the denominator.
    """
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
        """CCC of valence and of arousal; NaN where it is undefined: without points, or when the labels are constant."""
        n = max(self.count, 1)
        return _defined(self.m2_x / n, self.m2_y / n, self.c_xy / n, self.mean_x - self.mean_y)


def _defined(var_x: ndarray, var_y: ndarray, cov: ndarray, bias: ndarray) -> ndarray:
    constant = var_x < CONSTANT
    return np.where(constant, np.nan, concordance(np.where(constant, 1, var_x), var_y, cov, bias))


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
    """Challenge score, or a difference of two, with its bootstrap interval.

    Args:
        ccc: valence, arousal and their mean, (3,); NaN where the labels are constant.
        low: lower ends of the 95 % intervals, (3,); NaN for one unit, which says nothing of others.
        high: upper ends, (3,).
        num_frames: annotated frames.
        num_units: what was drawn as a whole: videos, tracks or people.
    """

    ccc: ndarray
    low: ndarray
    high: ndarray
    num_frames: int
    num_units: int


def score(units: Sequence[Moments], *, num_resamples: int = 2000, seed: int = 0) -> Score:
    """Score all frames of all units concatenated, with a percentile bootstrap over units.

    Whole units are drawn with replacement, since frames of one video are not independent.

    Args:
        units: moments of each video (or person); units without an annotated frame are left out.
        num_resamples: bootstrap resamples.
        seed: seed of the resampling.

    Returns:
        CCC valence, arousal, mean, and the 2.5 % and 97.5 % percentiles of each.

    Raises:
        ValueError: no unit has an annotated frame.
    """
    units = _annotated(units)
    samples = _resampled(units, num_resamples, seed)
    return _with_interval(_with_mean(merge(units).ccc()), samples, units)


def difference(
    ours: Sequence[Moments], theirs: Sequence[Moments], *, num_resamples: int = 2000, seed: int = 0
) -> Score:
    """Score of one system minus another's on the same units, with a paired bootstrap: both see the same draws.

    Args:
        ours: moments of each video.
        theirs: the same of the other system, in the same order.
        num_resamples: bootstrap resamples.
        seed: seed of the resampling.

    Raises:
        ValueError: no unit has an annotated frame, or the systems were judged on different frames.
    """
    ours, theirs = _annotated(ours), _annotated(theirs)
    if [unit.count for unit in ours] != [unit.count for unit in theirs]:
        raise ValueError("two systems that were judged on different frames cannot be compared")
    samples = _resampled(ours, num_resamples, seed) - _resampled(theirs, num_resamples, seed)
    return _with_interval(_with_mean(merge(ours).ccc()) - _with_mean(merge(theirs).ccc()), samples, ours)


def _annotated(units: Sequence[Moments]) -> list[Moments]:
    units = [unit for unit in units if unit.count]
    if not units:
        raise ValueError("no annotated frame to score on")
    return units


def _with_interval(value: Float[ndarray, " 3"], samples: Float[ndarray, "draws 3"], units: Sequence[Moments]) -> Score:
    num_frames, unknown = sum(unit.count for unit in units), np.full(3, np.nan)
    if len(units) == 1:
        return Score(value, unknown, unknown, num_frames, 1)
    known = ~np.isnan(samples).all(axis=0)
    low, high = unknown.copy(), unknown.copy()
    low[known], high[known] = np.nanpercentile(samples[:, known], [2.5, 97.5], axis=0)
    return Score(value, low, high, num_frames, len(units))


def _resampled(units: Sequence[Moments], num_resamples: int, seed: int) -> Float[ndarray, "draws 3"]:
    """Scores of draws of units with replacement, from sums about the mean of all, which add up."""
    whole = merge(units)
    sums = []
    for unit in units:
        dx, dy, n = unit.mean_x - whole.mean_x, unit.mean_y - whole.mean_y, unit.count
        squares = (unit.m2_x + n * dx * dx, unit.m2_y + n * dy * dy, unit.c_xy + n * dx * dy)
        sums.append(np.stack([n * dx, n * dy, *squares]))  # (5, 2)
    drawn = np.random.default_rng(seed).integers(0, len(units), (num_resamples, len(units)))
    times = np.stack([(drawn == i).sum(axis=1) for i in range(len(units))], axis=1)  # (draws, units)
    n = (times @ np.array([unit.count for unit in units]))[:, None]
    x, y, xx, yy, xy = np.moveaxis(np.tensordot(times, np.stack(sums), axes=1) / n[..., None], 1, 0)  # (draws, 2) each
    bias = x - y + whole.mean_x - whole.mean_y
    return _with_mean(_defined(xx - x * x, yy - y * y, xy - x * y, bias))


def _with_mean(values: Float[ndarray, "*draws 2"]) -> Float[ndarray, "*draws 3"]:
    return np.concatenate([values, values.mean(axis=-1, keepdims=True)], axis=-1)


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
    return concordance(var_x, var_y, cov, mean_x - mean_y, LOSS_EPSILON)


def hybrid_loss(
    gold: Float[Tensor, "B T 2"], predicted: Float[Tensor, "B T 2"], annotated: Bool[Tensor, "B T"], settings: Loss
) -> Float[Tensor, ""]:
    """Weighted ``1 - CCC`` of both dimensions plus a pointwise term, in float32 or wider.

        (w_v (1 - CCC_v) + w_a (1 - CCC_a)) / (w_v + w_a) + lambda error

    Args:
        gold: annotations; values where ``annotated`` is false are never read.
        predicted: predictions.
        annotated: which points count.
        settings: weights, what a CCC runs over, the pointwise term.

    Returns:
        The loss; a constant when the batch has no annotated point (it is then to be skipped). With fewer than
        ``min_points`` points the pointwise term alone, unweighted. No number of it is looked at on the way, so that a
        GPU need not wait.

    Source: paper, section 3.5; windows without an annotated frame are left out of the mean over windows.
    """
    predicted = predicted.float() if predicted.dtype in (torch.float16, torch.bfloat16) else predicted
    difference = torch.where(annotated[..., None], predicted - gold, 0)
    count = annotated.sum()
    size = difference.abs() if settings.error == "mae" else difference.square()
    error = size.sum() / (2 * count).clamp(min=1)
    if settings.ccc_over == "batch":
        concordance = masked_ccc(gold.flatten(0, 1), predicted.flatten(0, 1), annotated.flatten())
    else:
        used = annotated.any(dim=1)
        windows = masked_ccc(gold, predicted, annotated)  # (B, 2); 0 in a window without an annotated frame
        concordance = windows.sum(dim=0) / used.sum().clamp(min=1)
    dimensions = (settings.valence_weight, concordance[0]), (settings.arousal_weight, concordance[1])
    loss = sum(weight * (1 - value) for weight, value in dimensions) / sum(weight for weight, _ in dimensions)
    loss = loss + settings.error_weight * error
    return torch.where(count < settings.min_points, error, loss) if settings.ccc_over == "batch" else loss
