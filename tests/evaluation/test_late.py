"""Late fusion: the best convex weights, found on some videos and judged on others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affect.concordance import ccc
from affect.evaluation import late


def systems(seed: int, num: int = 3, frames: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Gold values and systems that see them through noise of their own, at their own scale."""
    rng = np.random.default_rng(seed)
    gold = rng.uniform(-1, 1, (frames, 2))
    noise = rng.normal(0, rng.uniform(0.1, 0.8, (num, 1, 2)), (num, frames, 2))
    return gold, rng.uniform(0.3, 1.5, (num, 1, 2)) * gold + noise


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_weights_are_convex_and_no_worse_than_any_system_or_their_mean(seed: int):
    gold, predictions = systems(seed)
    gold[::7] = np.nan
    weights = late.fit(gold, predictions)
    assert (weights >= 0).all() and weights.sum(axis=0) == pytest.approx([1, 1])
    fused = ccc(gold, late.combine(weights, predictions))
    for other in (*predictions, predictions.mean(axis=0)):
        assert (fused >= ccc(gold, other) - 1e-9).all()


def test_two_systems_get_the_weights_of_a_fine_grid():
    gold, predictions = systems(1, num=2)
    grid = np.linspace(0, 1, 2001)
    scores = np.array([ccc(gold, w * predictions[0] + (1 - w) * predictions[1]) for w in grid])
    assert late.fit(gold, predictions)[0] == pytest.approx(grid[scores.argmax(axis=0)], abs=1e-3)


def test_a_video_is_fused_by_weights_that_never_saw_it():
    golds, predictions = {}, {}
    for number in range(4):
        golds[f"v{number}"], predictions[f"v{number}"] = systems(number)
    folds = [{"v0", "v1"}, {"v2", "v3"}]
    fused, weights = late.combine_unseen(golds, predictions, folds)
    changed = {**golds, "v0": np.zeros_like(golds["v0"])}
    again, _ = late.combine_unseen(changed, predictions, folds)
    assert np.array_equal(fused["v0"], again["v0"]) and not np.array_equal(fused["v2"], again["v2"])
    assert weights.sum(axis=0) == pytest.approx([1, 1]) and fused.keys() == golds.keys()


def test_constant_or_missing_labels_leave_nothing_to_fit_on():
    gold, predictions = systems(0)
    for wrong in (np.full_like(gold, np.nan), np.full_like(gold, 0.3)):
        with pytest.raises(ValueError, match="nothing to fit on"):
            late.fit(wrong, predictions)
