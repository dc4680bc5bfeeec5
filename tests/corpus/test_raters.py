"""Several raters: agreement, weights and means against plain loops."""

import numpy as np
import pytest

from affect.corpus.raters import agreement, mean_of


def ratings(seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Two tracks; three raters with noise of their own, one of whom rated half of a track and none of the other."""
    rng = np.random.default_rng(seed)
    truth = [np.sin(np.arange(200)[:, None] / [20, 31]) * 0.5, np.cos(np.arange(100)[:, None] / [17, 40]) * 0.5]
    tracks = []
    for curve in truth:
        tracks.append({r: curve + noise * rng.normal(size=curve.shape) for r, noise in (("a", 0.05), ("b", 0.5))})
    half = truth[0] + 0.1 * rng.normal(size=truth[0].shape)
    half[100:] = np.nan
    tracks[0]["c"] = half
    return tracks


def test_weights_and_agreement_are_as_defined():
    tracks = ratings()
    found = agreement(tracks, "weighted")
    assert found.raters == ("a", "b", "c")
    everything = {r: np.concatenate([t.get(r, np.full_like(t["a"], np.nan)) for t in tracks]) for r in "abc"}
    for c in range(2):
        correlations = np.full((3, 3), np.nan)
        cccs = []
        for i, x in enumerate("abc"):
            for j, y in enumerate("abc"):
                both = ~np.isnan(everything[x][:, c] + everything[y][:, c])
                p, q = everything[x][both, c], everything[y][both, c]
                if i != j:
                    correlations[i, j] = np.corrcoef(p, q)[0, 1]
                if i < j:
                    cov = ((p - p.mean()) * (q - q.mean())).mean()
                    cccs.append(2 * cov / (p.var() + q.var() + (p.mean() - q.mean()) ** 2))
        weight = np.nanmean(correlations.clip(min=0), axis=1)
        np.testing.assert_allclose(found.weight[:, c], weight / weight.sum(), atol=1e-9)
        assert found.pairwise[c] == pytest.approx(np.mean(cccs))
    assert found.rated.tolist() == pytest.approx([1, 1, 100 / 300])
    assert found.weight[0, 0] > found.weight[1, 0]  # less noise


def test_the_mean_is_of_those_who_rated_a_frame():
    values = np.array([[[0.0, 0], [1, 1], [np.nan, 1]], [[1.0, 1], [np.nan, np.nan], [np.nan, 0]]])
    np.testing.assert_allclose(mean_of(values), [[0.5, 0.5], [1, 1], [np.nan, 0.5]])
    weight = np.array([[3.0, 0], [1, 1]])
    np.testing.assert_allclose(mean_of(values, weight), [[0.25, 1], [1, 1], [np.nan, 0]])


def test_whoever_contradicts_the_others_has_no_weight():
    tracks = ratings()
    tracks = [{"a": t["a"], "b": t["a"] * 0.9, "liar": -t["a"]} for t in tracks]
    found = agreement(tracks, "weighted")
    assert (found.weight[2] == 0).all() and (found.with_rest[2] < 0).all()
    np.testing.assert_allclose(agreement(tracks, "mean").weight, 1 / 3)


def test_where_nobody_agrees_all_weigh_the_same():
    values = ratings()[0]["a"]
    np.testing.assert_allclose(agreement([{"a": values, "b": -values}], "weighted").weight, 0.5)


def test_one_rater_needs_no_agreement():
    found = agreement([{"": ratings()[0]["a"]}], "weighted")
    assert np.isnan(found.pairwise).all() and (found.weight == 1).all()
