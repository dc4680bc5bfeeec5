"""Lin's coefficient against paper, torchmetrics and its own laws."""

import itertools
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional import concordance_corrcoef

from affect import concordance
from affect.concordance import Moments, ccc, hybrid_loss, masked_ccc
from affect.config import Loss

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


def test_the_bootstrap_is_that_of_merged_moments():
    parts = [Moments.of(*pair(seed, n)) for seed, n in enumerate((50, 7, 120, 33))]
    drawn = np.random.default_rng(5).integers(0, 4, (200, 4))
    slow = [concordance.merge([parts[i] for i in draw]).ccc() for draw in drawn]
    slow = [[v, a, (v + a) / 2] for v, a in slow]
    result = concordance.score(parts, num_resamples=200, seed=5)
    assert result.low == pytest.approx(np.percentile(slow, 2.5, axis=0), abs=1e-12)
    assert result.high == pytest.approx(np.percentile(slow, 97.5, axis=0), abs=1e-12)


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


def test_constant_labels_have_no_ccc_and_take_no_part_in_the_interval():
    gold, predicted = pair(0)
    gold[:, 1] = 0.1 + 0.2
    valence, arousal = ccc(gold, predicted)
    assert np.isfinite(valence) and np.isnan(arousal)
    result = concordance.score([Moments.of(gold, predicted), Moments.of(*pair(1)), Moments.of(gold, predicted)])
    assert np.isfinite(result.low).all()
    flat = concordance.score([Moments.of(gold, predicted), Moments.of(gold, predicted)])
    assert np.isnan([flat.ccc[1], flat.low[1], flat.high[1], flat.ccc[2]]).all() and np.isfinite(flat.low[0])


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
