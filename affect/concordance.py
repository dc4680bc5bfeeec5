"""Lin's concordance correlation coefficient: as metric from mergeable moments, with intervals, and as loss.

    CCC(x, y) = 2 cov(x, y) / (var x + var y + (mean x - mean y)^2)          population moments

The challenge's score is the mean of the CCC of valence and the CCC of arousal, each over all annotated frames of all
videos concatenated.

Source: Lin 1989; paper (arXiv 2603.13056), section 3.5 (loss); spec sections 1 and 8.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.special import stdtrit
from torch import Tensor

from affect.settings.training import Loss

LOSS_EPSILON = 1e-8
"""Added to the denominator of the CCC in the loss."""
CONSTANT = 1e-12
"""Labels with a variance below this are constant: their CCC is undefined."""
MIN_UNITS = 3
"""Fewest units with an interval; with two units a 95 % interval covers 91 %."""


def concordance(var_x: Any, var_y: Any, cov: Any, bias: Any, epsilon: float = 0.0) -> Any:  # noqa: ANN401
    """Computes the CCC from moments, for floats, arrays or tensors.

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
    """Count, means and centred sums of gold values x and predictions y per dimension, float64.

    Args:
        count: number of points.
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
        """Computes the moments over the annotated frames, whose gold values are not NaN.

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
        """Merges the moments of two disjoint sets of points.

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
        """CCC of valence and of arousal; NaN without points or if the labels are constant."""
        n = max(self.count, 1)
        return _defined(self.m2_x / n, self.m2_y / n, self.c_xy / n, self.mean_x - self.mean_y)


def _defined(var_x: ndarray, var_y: ndarray, cov: ndarray, bias: ndarray) -> ndarray:
    constant = var_x < CONSTANT
    return np.where(constant, np.nan, concordance(np.where(constant, 1, var_x), var_y, cov, bias))


def merge(parts: Sequence[Moments]) -> Moments:
    """Merges the moments of one or more disjoint sets of points."""
    return reduce(Moments.merge, parts)


def ccc(gold: Float[ndarray, "frames 2"], predicted: Float[ndarray, "frames 2"]) -> Float[ndarray, " 2"]:
    """Computes the CCC of valence and of arousal over the annotated frames.

    Args:
        gold: annotations, NaN at frames without one.
        predicted: predictions, finite at annotated frames.

    Returns:
        Two numbers in [-1, 1].

    Raises:
        ValueError: an annotated frame has no prediction.
    """
    return Moments.of(gold, predicted).ccc()


@dataclass(frozen=True)
class Score:
    """Challenge score, or a difference of two scores, with 95 % intervals from :func:`jackknife`.

    Args:
        ccc: valence, arousal and their mean, (3,); NaN if the labels are constant.
        low: lower ends of the intervals, (3,); NaN with fewer than three units, or if the labels become constant
            without one of the units.
        high: upper ends of the intervals, (3,).
        num_frames: number of annotated frames.
        num_units: number of units that are left out in turn: videos, tracks or people.
    """

    ccc: ndarray
    low: ndarray
    high: ndarray
    num_frames: int
    num_units: int

    def text(self, index: int, units: str = "videos", form: str = "{:.3f}") -> str:
        """Formats a value and its interval.

        Args:
            index: 0 for valence, 1 for arousal, 2 for their mean.
            units: kind of the units, in the plural.
            form: format of each number.

        Returns:
            ``0.812 [0.644, 0.980]``, ``0.812 [too few videos]``, ``0.812 [no interval]`` if labels become constant
            without one of the units, or ``constant labels``.
        """
        if np.isnan(self.ccc[index]):
            return "constant labels"
        value, low, high = (form.format(part[index]) for part in (self.ccc, self.low, self.high))
        if np.isfinite(self.low[index]):
            return f"{value} [{low}, {high}]"
        return f"{value} [{f'too few {units}' if self.num_units < MIN_UNITS else 'no interval'}]"


def score(units: Sequence[Moments]) -> Score:
    """Scores all frames of all units concatenated; intervals are over units, since a unit's frames are dependent.

    Args:
        units: moments of each video or person; units without an annotated frame are left out.

    Returns:
        CCC of valence, arousal and their mean, with intervals inside [-1, 1].

    Raises:
        ValueError: no unit has an annotated frame.
    """
    units = _annotated(units)
    value = _with_mean(merge(units).ccc())
    return _with_interval(value, _left_out(units), units, bound=1.0)


def difference(ours: Sequence[Moments], theirs: Sequence[Moments]) -> Score:
    """Scores one system minus another on the same units, with paired intervals (both without the same unit).

    Args:
        ours: moments of each unit.
        theirs: moments of the other system, for the same units in the same order.

    Returns:
        Difference of the CCC of valence, arousal and their mean, with intervals inside [-2, 2].

    Raises:
        ValueError: no unit has an annotated frame, or the systems were scored on different frames.
    """
    ours, theirs = _annotated(ours), _annotated(theirs)
    if [unit.count for unit in ours] != [unit.count for unit in theirs]:
        raise ValueError("two systems that were judged on different frames cannot be compared")
    value = _with_mean(merge(ours).ccc()) - _with_mean(merge(theirs).ccc())
    return _with_interval(value, _left_out(ours) - _left_out(theirs), ours, bound=2.0)


def jackknife(
    left_out: Float[ndarray, "*sets units values"], sizes: Float[ndarray, "*sets units"]
) -> Float[ndarray, "*sets values"]:
    """Computes half the length of a 95 % interval by the delete-one jackknife.

        half = t(.975, df) sqrt((n - 1) / n  sum_i d_i^2)          d_i = v_i - mean v
        df   = min(df_m, df_d), in [1, n - 1]
        df_m = (sum_i m_i)^2 / sum_i m_i^2 - 1
        df_d = 2 (n - 1) / (k - 1)             k = n (n + 1) / (n - 1)  sum_i d_i^4 / (sum_i d_i^2)^2

    v_i is the value without unit i, m_i the number of frames of unit i, n the number of units. If few units are long or
    change the value, the variance is estimated from few of them: df_m + 1 is Kish's effective number of units, df_d are
    Satterthwaite's degrees of freedom of a variance of numbers with kurtosis k (3 if they are normal).

    Args:
        left_out: value without each unit, for three or more units.
        sizes: frames of each unit.

    Returns:
        Half-lengths; NaN if a value is NaN, 0 if all values are equal.

    Source: Tukey 1958, Efron and Stein 1981 (delete-one jackknife); Kish 1965; Satterthwaite 1946.

    Differs: the percentile, BCa and basic bootstraps over units cover the population's CCC in fewer than 95 % of cases,
        see ``python jobs/benchmark.py intervals``.
    """
    n = left_out.shape[-2]
    squares = (left_out - left_out.mean(axis=-2, keepdims=True)) ** 2
    total = squares.sum(axis=-2)
    shares = squares / np.where(total == 0, 1, total)[..., None, :]
    kurtosis = n * (n + 1) / (n - 1) * (shares**2).sum(axis=-2)
    by_value = 2 * (n - 1) / np.maximum(kurtosis - 1, 1)
    by_size = sizes.sum(axis=-1) ** 2 / (sizes**2).sum(axis=-1) - 1
    freedom = np.clip(np.minimum(by_value, by_size[..., None]), 1, n - 1)
    return stdtrit(freedom, 0.975) * np.sqrt((n - 1) / n * total)


def _annotated(units: Sequence[Moments]) -> list[Moments]:
    units = [unit for unit in units if unit.count]
    if not units:
        raise ValueError("no annotated frame to score on")
    return units


def _with_interval(
    value: Float[ndarray, " 3"], left_out: Float[ndarray, "units 3"], units: Sequence[Moments], bound: float
) -> Score:
    sizes = np.array([unit.count for unit in units], float)
    half = jackknife(left_out, sizes) if len(units) >= MIN_UNITS else np.full(3, np.nan)
    low, high = np.maximum(value - half, -bound), np.minimum(value + half, bound)
    return Score(value, low, high, int(sizes.sum()), len(units))


def _left_out(units: Sequence[Moments]) -> Float[ndarray, "units 3"]:
    """Scores without each unit, from sums about the common mean; NaN if there is no other unit."""
    count = np.array([unit.count for unit in units], float)[:, None]
    mean_x, mean_y, m2_x, m2_y, c_xy = (
        np.stack([getattr(unit, name) for unit in units]) for name in ("mean_x", "mean_y", "m2_x", "m2_y", "c_xy")
    )
    bias = ((mean_x - mean_y) * count).sum(axis=0) / count.sum()
    dx, dy = (mean - (mean * count).sum(axis=0) / count.sum() for mean in (mean_x, mean_y))
    parts = (count * dx, count * dy, m2_x + count * dx * dx, m2_y + count * dy * dy, c_xy + count * dx * dy)
    rest = np.maximum(count.sum() - count, 1)
    x, y, xx, yy, xy = ((part.sum(axis=0) - part) / rest for part in parts)  # (units, 2) each
    return _with_mean(_defined(xx - x * x, yy - y * y, xy - x * y, x - y + bias))


def _with_mean(values: Float[ndarray, "*rows 2"]) -> Float[ndarray, "*rows 3"]:
    return np.concatenate([values, values.mean(axis=-1, keepdims=True)], axis=-1)


def masked_ccc(
    gold: Float[Tensor, "*rows points 2"],
    predicted: Float[Tensor, "*rows points 2"],
    mask: Bool[Tensor, "*rows points"],
) -> Float[Tensor, "*rows 2"]:
    """Computes the differentiable CCC of each row over the points where ``mask`` is true; 1e-8 in the denominator."""
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
    """Computes the weighted ``1 - CCC`` of both dimensions plus a pointwise error, in float32 or wider.

        loss = (w_v (1 - CCC_v) + w_a (1 - CCC_a)) / (w_v + w_a) + lambda error          error: MAE or MSE

    Args:
        gold: annotations; values where ``annotated`` is false are never read.
        predicted: predictions.
        annotated: true for points that count.
        settings: weights; CCC over the batch or per window; kind and weight lambda of the error.

    Returns:
        The loss. Over the batch, with fewer than ``min_points`` points it is the unweighted error. Windows without an
        annotated point are left out of the mean over windows. Without any annotated point it is a constant, and the
        batch is to be skipped. No value is read on the host, so that a GPU does not wait.

    Source: paper (arXiv 2603.13056), section 3.5; spec section 8.
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
