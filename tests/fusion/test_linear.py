"""The linear map of encoders' ratings: a plain reference in float64, the solution, and honest folds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affect import timeline
from affect.concordance import Moments, ccc
from affect.corpus.track import Track
from affect.fusion import calibration
from affect.fusion.linear import mean_of_valid
from affect.fusion.linear_task import LinearTask
from affect.fusion.task import without
from affect.learning import batches
from affect.settings.models import Linear
from affect.tracks.synthetic import make_track

CPU = torch.device("cpu")
WIDTHS = {"face": 10, "audio": 3}
SETTINGS = Linear(smooth_s=(1.0, 0.0, 2.0), folds=4)


def rated(name: str, num_frames: int, rng: np.random.Generator, noise: float = 0.3) -> Track:
    """A track whose first ratings follow the annotations, biased and scaled, and whose others are noise or copies."""
    track = make_track(name, num_frames, rng, fps=10.0, width=4)
    ratings = {}
    for modality, width in WIDTHS.items():
        values = rng.normal(size=(num_frames, width))
        values[:, :2] = 0.5 * track.gold + 0.2 + noise * rng.normal(size=(num_frames, 2))
        values[:, 2] = track.gold[:, 0] - track.gold[:, 1] + noise * rng.normal(size=num_frames)
        values[~track.series[modality].valid] = np.nan
        ratings[modality] = values.astype(np.float32)
    return replace(track, ratings=ratings)


def tracks(count: int, seed: int, noise: float = 0.3) -> list[Track]:
    rng = np.random.default_rng(seed)
    task = LinearTask(SETTINGS, WIDTHS)
    return [task.prepare(rated(f"track{i}", int(n), rng, noise)) for i, n in enumerate(rng.integers(80, 200, count))]


def plain(track: Track, task: LinearTask, model: torch.nn.Module) -> np.ndarray:
    """Predictions, frame by frame, from the definition."""
    p = {name: value.double().numpy() for name, value in model.named_parameters()}
    half = [max(0, round((width * timeline.Timestamps(track.time_s).fps - 1) / 2)) for width in p["smooth_s"]]
    ratings = [track.ratings[m].astype(np.float64) for m in task.modalities]
    medians = [np.nanmedian(r, axis=0) if np.isfinite(r).any() else np.zeros(r.shape[1]) for r in ratings]
    value = np.full((track.num_frames, 2), np.nan)
    for c in range(2):
        for t in range(track.num_frames):
            present = [np.isfinite(r[t]).all() for r in ratings]
            if not any(present):
                continue
            total = sum(prior for prior, here in zip(p["prior"][c], present, strict=True) if here)
            value[t, c] = p["offset"][c]
            start = 0
            for i, r in enumerate(ratings):
                weight = p["weight"][c, start : start + r.shape[1]]
                start += r.shape[1]
                if present[i]:
                    x = r[t] - medians[i] if p["centered"][c] else r[t]
                    gate = 1.0 if p["trained"][0] else p["prior"][c, i] / total
                    value[t, c] += gate * (weight @ x + p["bias"][c, i])
    smoothed = np.full_like(value, np.nan)
    for c in range(2):
        for t in range(track.num_frames):
            window = value[max(0, t - half[c]) : t + half[c] + 1, c]
            if np.isfinite(window).any():
                smoothed[t, c] = np.nanmean(window)
        known = np.flatnonzero(np.isfinite(smoothed[:, c]))
        nearest = [known[np.argmin(np.abs(known - t))] for t in range(track.num_frames)]
        smoothed[:, c] = smoothed[nearest, c]
    return smoothed.clip(-1, 1)


@pytest.mark.parametrize("trained", [False, True])
def test_the_map_is_its_definition(trained: bool):
    task, seed = LinearTask(SETTINGS, WIDTHS), np.random.SeedSequence().entropy
    model = task.build()
    if trained:
        generator = torch.Generator().manual_seed(int(seed) % 2**32)
        for name in ("weight", "bias", "offset"):
            parameter = getattr(model, name)
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
        model.smooth_s.data, model.centered.data = torch.tensor([0.7, 0.0]), torch.tensor([1.0, 0.0])
        model.trained.data[:] = 1
    else:
        model.smooth_s.data[:] = 1.04  # a second of ten frames lies between two widths: its rounding decides
    for track in tracks(3, int(seed)):
        found = task.predict(track, batches.run(task, model, track, CPU))
        assert found == pytest.approx(plain(track, task, model), abs=1e-5), seed


def test_untrained_it_is_the_weighted_mean_of_the_encoders_own_ratings():
    task = LinearTask(replace(SETTINGS, smooth_s=(0.0,)), WIDTHS)
    [track] = tracks(1, 0)
    outputs = batches.run(task, task.build(), track, CPU)
    found = task.series(track, outputs).prediction
    face, audio = (track.series[m].valid for m in task.modalities)
    own = {m: track.ratings[m][:, :2] for m in task.modalities}
    both, alone = face & audio, face & ~audio
    assert both.any() and alone.any()
    shares = np.array([[0.8, 0.5], [0.2, 0.5]])
    assert found[both] == pytest.approx(shares[0] * own["face"][both] + shares[1] * own["audio"][both], abs=1e-6)
    assert found[alone] == pytest.approx(own["face"][alone], abs=1e-6)
    trust = task.trust(track, outputs)
    assert trust["face"][both] == pytest.approx(0.65) and trust["face"][alone] == pytest.approx(1.0)


def test_a_modality_that_is_taken_away_has_no_weight():
    task = LinearTask(SETTINGS, WIDTHS)
    [track] = tracks(1, 1)
    alone = without(track, "audio")
    outputs = batches.run(task, task.build(), alone, CPU)
    assert not task.trust(alone, outputs)["audio"].any()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(0, 12))
def test_the_mean_of_valid_frames_is_its_definition(seed: int, width: float):
    rng = np.random.default_rng(seed)
    values, valid = rng.normal(size=(30, 2)), rng.random(30) < 0.4
    found, half = mean_of_valid(values, valid, width), max(0, round((width - 1) / 2))
    if not valid.any():
        assert not found.any()
        return
    means = np.full((30, 2), np.nan)
    for t in range(30):
        window = slice(max(0, t - half), t + half + 1)
        if valid[window].any():
            means[t] = values[window][valid[window]].mean(axis=0)
    known = np.flatnonzero(np.isfinite(means[:, 0]))
    assert found == pytest.approx(means[[known[np.argmin(np.abs(known - t))] for t in range(30)]])


def test_moments_say_of_a_map_what_its_predictions_say():
    rng = np.random.default_rng()
    u, gold = rng.normal(size=(200, 4)), rng.normal(size=(200, 2))
    gold[rng.random(200) < 0.3] = np.nan
    maps = [calibration.Map(rng.normal(size=4), float(rng.normal())) for _ in range(2)]
    predicted = np.stack([u @ m.weight + m.offset for m in maps], axis=1)
    found, expected = calibration.agreement(calibration.moments(u, gold), maps), Moments.of(gold, predicted)
    assert found.count == expected.count and found.ccc() == pytest.approx(expected.ccc(), abs=1e-9)


def test_no_other_map_has_a_higher_ccc_in_the_sample():
    rng = np.random.default_rng()
    u = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)) + rng.normal(size=5)
    gold = np.stack([u @ rng.normal(size=5), u @ rng.normal(size=5)], axis=1) + 3 * rng.normal(size=(300, 2))
    s = calibration.moments(u, gold)
    best = [calibration.solve(s, channel, 1e-12) for channel in range(2)]
    reached = calibration.agreement(s, best).ccc()
    for size in (1e-3, 0.1, 1.0):
        for _ in range(50):
            others = [
                calibration.Map(m.weight + size * rng.normal(size=5), m.offset + size * rng.normal()) for m in best
            ]
            assert (calibration.agreement(s, others).ccc() <= reached + 1e-9).all()


def test_training_fits_what_the_untrained_map_gets_wrong():
    task = LinearTask(SETTINGS, WIDTHS)
    fitted = task.solve(tracks(8, 2), [])
    unseen = tracks(4, 3)
    gold = np.concatenate([track.gold for track in unseen])
    scores = {}
    for name, model in (("fitted", fitted.model), ("untrained", task.build())):
        scores[name] = ccc(gold, np.concatenate([task.predict(t, batches.run(task, model, t, CPU)) for t in unseen]))
    assert (scores["fitted"] > scores["untrained"] + 0.1).all() and fitted.best.ccc[2] > 0.7


def test_folds_do_not_make_noise_look_like_a_gain():
    """With annotations that nothing predicts, the score over folds is about 0, whatever is selected."""
    rng = np.random.default_rng(4)
    task, scores = LinearTask(SETTINGS, WIDTHS), []
    for seed in range(12):
        shuffled = [replace(track, gold=rng.permutation(track.gold)) for track in tracks(6, 100 + seed, noise=3.0)]
        scores.append(task.solve(shuffled, []).best.ccc[2])
    assert np.mean(scores) < 2 * np.std(scores) / np.sqrt(len(scores)) + 0.01


def test_two_videos_can_be_fitted_and_say_so(capsys: pytest.CaptureFixture[str]):
    task = LinearTask(SETTINGS, WIDTHS)
    task.solve(tracks(2, 5), [])
    assert "2 videos with labels are too few to say what it gains" in capsys.readouterr().out
    of_two = [replace(track, shows="p" if i % 2 else "q") for i, track in enumerate(tracks(6, 5))]
    task.solve(of_two, [])  # six videos of two people are no more
    assert "2 videos with labels are too few to say what it gains" in capsys.readouterr().out


def test_nothing_annotated_is_a_clear_error():
    blank = [replace(track, gold=np.full_like(track.gold, np.nan)) for track in tracks(2, 6)]
    with pytest.raises(ValueError, match="nothing to learn from: 2 items have 2 windows, 0 of them annotated"):
        LinearTask(SETTINGS, WIDTHS).solve(blank, [])


def test_constant_ratings_have_no_weight():
    """Columns that an encoder does not rate are 0 everywhere."""
    found = []
    for track in tracks(4, 7):
        ratings = {m: values.copy() for m, values in track.ratings.items()}
        ratings["face"][:, 5] = np.nan
        found.append(LinearTask(SETTINGS, WIDTHS).prepare(replace(track, ratings=ratings)))
    model = LinearTask(SETTINGS, WIDTHS).solve(found, []).model
    assert not model.weight[:, 5].any() and model.weight[:, 0].abs().min() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modalities": ()}, "modalities .* have to be one or more different ones"),
        ({"modalities": ("face", "face")}, "modalities .* have to be one or more different ones"),
        ({"smooth_s": ()}, "smooth_s is"),
        ({"smooth_s": (-1.0,)}, "smooth_s is"),
        ({"valence_priors": {"face": 1.0}}, "valence_priors has no number above 0 for audio"),
    ],
)
def test_impossible_settings_are_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Linear(**changes)
