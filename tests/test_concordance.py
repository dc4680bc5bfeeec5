"""Lin's coefficient against paper, torchmetrics and its own laws."""

import itertools
import math
import random
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchmetrics.functional import concordance_corrcoef

from affect import concordance
from affect.concordance import Moments, ccc, hybrid_loss, masked_ccc
from affect.settings.training import Loss

seeds = st.integers(0, 2**32 - 1)


def pair(seed: int, n: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Gold values and predictions that agree somewhat."""
    rng = np.random.default_rng(seed)
    gold = rng.uniform(-1, 1, (n, 2))
    return gold, 0.5 * gold + rng.normal(0, 0.3, (n, 2)) + rng.uniform(-0.5, 0.5)


def test_a_value_worked_out_on_paper():
    # x = 1, 2, 3; y = 2, 2, 5: var 2/3 and 2, cov 1, means 2 and 3: 2 / (2/3 + 2 + 1) = 6 / 11
    gold, predicted = np.array([[1, 1], [2, 2], [3, 3.0]]), np.array([[2, 2], [2, 2], [5, 5.0]])
    assert ccc(gold, predicted) == pytest.approx([6 / 11, 6 / 11], abs=1e-15)


@given(seeds)
def test_it_agrees_with_torchmetrics(seed: int):
    gold, predicted = pair(seed)
    # torchmetrics takes sample variances, which cancel except beside the squared bias: scale that out
    gold, predicted = gold - gold.mean(0), predicted - predicted.mean(0)
    expected = concordance_corrcoef(torch.from_numpy(predicted), torch.from_numpy(gold))
    assert ccc(gold, predicted) == pytest.approx(expected.numpy(), abs=1e-9)


@given(seeds)
def test_it_is_symmetric_bounded_and_one_for_the_same(seed: int):
    gold, predicted = pair(seed)
    assert ccc(gold, predicted) == pytest.approx(ccc(predicted, gold))
    assert (np.abs(ccc(gold, predicted)) <= 1).all()
    assert ccc(gold, gold) == pytest.approx([1, 1])


@given(seeds, st.lists(st.integers(0, 49), max_size=6))
def test_merged_parts_are_the_whole(seed: int, cuts: list[int]):
    gold, predicted = pair(seed)
    edges = [0, *sorted(cuts), 50]
    parts = [Moments.of(gold[a:b], predicted[a:b]) for a, b in itertools.pairwise(edges)]
    whole = concordance.merge(parts)
    assert whole.count == 50
    assert whole.ccc() == pytest.approx(ccc(gold, predicted), abs=1e-12)


def test_frames_without_annotation_count_nowhere():
    gold, predicted = pair(0)
    extra = np.concatenate([gold, np.full((5, 2), np.nan)])
    assert ccc(extra, np.concatenate([predicted, np.full((5, 2), 99.0)])) == pytest.approx(ccc(gold, predicted))


def test_an_annotated_frame_without_prediction_is_an_error():
    gold, predicted = pair(0)
    predicted[7] = np.nan
    with pytest.raises(ValueError, match="first is frame 7"):
        ccc(gold, predicted)


def test_the_interval_holds_the_score_and_needs_annotation():
    parts = [Moments.of(*pair(seed)) for seed in range(6)]
    result = concordance.score(parts)
    assert (result.low <= result.ccc).all() and (result.ccc <= result.high).all()
    assert result.num_frames == 300 and result.num_units == 6
    assert np.isnan(concordance.score(parts[:1]).low).all()  # one track says nothing of others
    with pytest.raises(ValueError, match="no annotated frame"):
        concordance.score([Moments.of(np.full((3, 2), np.nan), np.zeros((3, 2)))])


def test_fewer_than_three_videos_have_no_interval_and_say_so():
    parts = [Moments.of(*pair(seed)) for seed in range(3)]
    for few in (parts[:1], parts[:2]):
        result = concordance.score(few)
        assert np.isfinite(result.ccc).all() and np.isnan([result.low, result.high]).all()
        assert result.text(2) == f"{result.ccc[2]:.3f} [too few videos]"
        assert np.isnan(concordance.difference(few, few).low).all()
    result = concordance.score(parts)
    assert result.text(0, "people") == f"{result.ccc[0]:.3f} [{result.low[0]:.3f}, {result.high[0]:.3f}]"


def by_loops(systems: list[list[tuple[np.ndarray, np.ndarray]]]) -> np.ndarray:
    """Half-lengths of the intervals of the first system's CCC minus the others', from frames, unit by unit."""

    def value(units: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        valence, arousal = ccc(*(np.concatenate(part) for part in zip(*units, strict=True)))
        return np.array([valence, arousal, (valence + arousal) / 2])

    lengths = [len(gold) for gold, _ in systems[0]]
    n, halves = len(lengths), []
    rests = [[value(system[:i] + system[i + 1 :]) for i in range(n)] for system in systems]
    for k in range(3):
        without = [rests[0][i][k] - sum(rest[i][k] for rest in rests[1:]) for i in range(n)]
        deviations = [v - sum(without) / n for v in without]
        squares = sum(d**2 for d in deviations)
        kurtosis = n * (n + 1) / (n - 1) * sum(d**4 for d in deviations) / squares**2
        by_size = sum(lengths) ** 2 / sum(m**2 for m in lengths) - 1
        freedom = max(1.0, min(n - 1, by_size, 2 * (n - 1) / (kurtosis - 1)))
        halves.append(stats.t.ppf(0.975, freedom) * math.sqrt((n - 1) / n * squares))
    return np.array(halves)


@settings(deadline=None, max_examples=40)
@given(seeds, st.lists(st.integers(2, 300), min_size=3, max_size=9))
def test_the_interval_is_the_jackknife_of_frames_in_loops(seed: int, lengths: list[int]):
    units = [pair(seed + i, n) for i, n in enumerate(lengths)]
    worse = [(gold, 0.9 * predicted) for gold, predicted in units]
    ours, theirs = ([Moments.of(*unit) for unit in system] for system in (units, worse))
    both = (
        (concordance.score(ours), by_loops([units]), 1),
        (concordance.difference(ours, theirs), by_loops([units, worse]), 2),
    )
    for result, half, bound in both:
        assert result.low == pytest.approx(np.maximum(result.ccc - half, -bound), abs=1e-9)
        assert result.high == pytest.approx(np.minimum(result.ccc + half, bound), abs=1e-9)


@settings(deadline=None)
@given(seeds, st.lists(st.integers(2, 300), min_size=3, max_size=9), st.randoms())
def test_the_interval_holds_the_score_in_any_order(seed: int, lengths: list[int], order: random.Random):
    parts = [Moments.of(*pair(seed + i, n)) for i, n in enumerate(lengths)]
    result = concordance.score(parts)
    assert (-1 <= result.low).all() and (result.low < result.ccc).all()
    assert (result.ccc < result.high).all() and (result.high <= 1).all()
    order.shuffle(parts)
    again = concordance.score(parts)
    for name in ("ccc", "low", "high"):
        assert getattr(again, name) == pytest.approx(getattr(result, name), abs=1e-9)


@settings(deadline=None)
@given(seeds, st.integers(3, 9))
def test_perfect_and_identical_systems_have_intervals_without_length(seed: int, num: int):
    pairs = [pair(seed + i) for i in range(num)]
    parts = [Moments.of(*each) for each in pairs]
    same = concordance.difference(parts, parts)
    assert not same.ccc.any() and not same.low.any() and not same.high.any()
    perfect = concordance.score([Moments.of(gold, gold) for gold, _ in pairs])
    assert perfect.ccc == pytest.approx([1, 1, 1], abs=1e-12)
    assert perfect.low == pytest.approx([1, 1, 1], abs=1e-12) and perfect.high == pytest.approx([1, 1, 1], abs=1e-12)


def test_intervals_hold_the_ccc_of_the_population_of_videos():
    """95 % intervals over 6 videos of different length, 400 times: at most 3 standard errors too few hold it.

    Labels have variance .09 between and .04 within videos, predictions add an offset and noise of .04 each to them, so
    the population's CCC is 2 (.09 + .04) / (2 (.09 + .04) + .04 + .04) = .765. A percentile bootstrap holds it
    in 72 %, and the same of the mean in 62 %.
    """
    rng = np.random.default_rng(0)
    truth, draws, num = 0.26 / 0.34, 400, 6
    held, equal = np.zeros(2), 0
    for _ in range(draws):
        count = np.ceil(1000 * rng.lognormal(0, 0.7, num)).astype(int)
        gold = rng.normal(0, 0.3, (num, 2))
        ours, theirs = (
            [
                Moments(n, x, x + offset, np.full(2, 0.04 * n), np.full(2, 0.08 * n), np.full(2, 0.04 * n))
                for n, x, offset in zip(count.tolist(), gold, rng.normal(0, 0.2, (num, 2)), strict=True)
            ]
            for _ in range(2)
        )
        result, gain = concordance.score(ours), concordance.difference(ours, theirs)
        held += ((result.low <= truth) & (truth <= result.high))[[0, 2]]
        equal += gain.low[2] <= 0 <= gain.high[2]
    least = draws * 0.95 - 3 * math.sqrt(draws * 0.95 * 0.05)
    assert (held >= least).all() and equal >= least


def test_a_difference_is_paired():
    """Two systems that differ by a hair everywhere differ surely, though each one's own interval is wide."""
    pairs = [pair(seed) for seed in range(8)]
    ours = [Moments.of(gold, predicted) for gold, predicted in pairs]
    theirs = [Moments.of(gold, predicted + 0.02 * np.sign(predicted - gold)) for gold, predicted in pairs]
    gain, alone = concordance.difference(ours, theirs), concordance.score(ours)
    assert gain.ccc == pytest.approx(alone.ccc - concordance.score(theirs).ccc)
    assert (gain.low > 0).all() and (gain.high - gain.low < 0.2 * (alone.high - alone.low)).all()
    assert concordance.difference(ours, ours).high == pytest.approx([0, 0, 0])
    with pytest.raises(ValueError, match="judged on different frames"):
        concordance.difference(ours, theirs[:-1])


def test_constant_labels_have_no_ccc_and_labels_that_one_video_alone_varies_no_interval():
    gold, predicted = pair(0)
    gold[:, 1] = 0.1 + 0.2
    valence, arousal = ccc(gold, predicted)
    assert np.isfinite(valence) and np.isnan(arousal)
    flat, varied = Moments.of(gold, predicted), Moments.of(*pair(1))
    assert np.isfinite(concordance.score([flat, varied, flat, varied]).low).all()
    once = concordance.score([flat, varied, flat])
    assert np.isfinite(once.ccc).all() and np.isfinite(once.low).tolist() == [True, False, False]
    never = concordance.score([flat, flat, flat])
    assert np.isnan([never.ccc[1], never.low[1], never.high[1], never.ccc[2]]).all() and np.isfinite(never.low[0])
    assert never.text(1) == "constant labels"


@given(seeds)
def test_the_loss_is_the_metric_where_it_is_masked_in(seed: int):
    gold, predicted = pair(seed)
    mask = np.random.default_rng(seed).random(50) < 0.7
    mask[:3] = True
    garbage = np.where(mask[:, None], predicted, 1e3)
    value = masked_ccc(*(torch.from_numpy(a) for a in (gold, garbage, mask)))
    assert value.numpy() == pytest.approx(ccc(gold[mask], predicted[mask]), abs=1e-6)


def test_windows_without_annotation_are_left_out_of_the_mean():
    gold, predicted = (torch.from_numpy(a).view(2, 25, 2) for a in pair(1))
    annotated = torch.ones(2, 25, dtype=torch.bool)
    settings = Loss(ccc_over="window")
    both = hybrid_loss(gold, predicted, annotated, settings)
    annotated[1] = False
    first = hybrid_loss(gold, predicted, annotated, settings)
    alone = hybrid_loss(gold[:1], predicted[:1], annotated[:1], settings)
    assert first == pytest.approx(alone.item()) and first != pytest.approx(both.item())


@pytest.mark.parametrize("over", ["window", "batch"])
def test_a_batch_without_annotation_has_a_loss_without_a_gradient(over: Literal["window", "batch"]):
    gold, predicted = torch.full((2, 25, 2), torch.nan), torch.randn(2, 25, 2, requires_grad=True)
    settings = Loss(ccc_over=over, error_weight=1.0, min_points=4)
    loss = hybrid_loss(gold, predicted, torch.zeros(2, 25, dtype=torch.bool), settings)
    loss.backward()
    assert loss.isfinite() and predicted.grad is not None and not predicted.grad.any()


def test_the_hybrid_loss_of_a_batch_is_its_equation():
    gold, predicted = (torch.from_numpy(a)[None] for a in pair(2))
    settings = Loss(
        valence_weight=0.7, arousal_weight=0.3, ccc_over="batch", error="mse", error_weight=0.1, min_points=4
    )
    annotated = torch.ones(1, 50, dtype=torch.bool)
    loss = hybrid_loss(gold, predicted, annotated, settings)
    v, a = ccc(gold[0].numpy(), predicted[0].numpy())
    expected = 0.7 * (1 - v) + 0.3 * (1 - a) + 0.1 * ((gold - predicted) ** 2).mean()
    assert loss == pytest.approx(float(expected), abs=1e-6)
    annotated[0, 3:] = False  # three points: the pointwise term alone
    assert hybrid_loss(gold, predicted, annotated, settings) == pytest.approx(
        ((gold - predicted)[0, :3] ** 2).mean().item()
    )
