"""How the fusions are fed, and that any number of processes learns the same."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from affect.corpus.track import Series, Track
from affect.fusion.task import DcmmoeTask, FusionTask, RaavTask, kept_modalities, without
from affect.learning import batches
from affect.learning.fit import Step, fit
from affect.modalities import MODALITIES
from affect.settings.models import Dcmmoe, Raav
from affect.settings.training import Fit, Loss
from affect.tracks.synthetic import make_track
from tests.processes import spawn

CPU = torch.device("cpu")
WIDTH = 6
WIDTHS: dict[str, int] = dict.fromkeys(MODALITIES, WIDTH)
FIT = Fit(learning_rate=1e-3, max_epochs=8, batch_size=5, precision="float64", plateau_factor=0.1)
DCMMOE = Dcmmoe(hidden=8, layers=1, heads=2, dropout=0.0, window_frames=40, window_hop_frames=25, fit=FIT)
RAAV_FIT = replace(FIT, loss=Loss(valence_weight=0.7, arousal_weight=0.3, ccc_over="batch", error_weight=0.01))
RAAV = Raav(hidden=8, heads=2, feedforward=16, dropout=0.0, fit=RAAV_FIT)


def tracks(count: int, seed: int, fps: float = 5.0) -> list[Track]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(30, 110, count).tolist()
    return [make_track(f"track{i}", n, rng, fps=fps, width=WIDTH) for i, n in enumerate(lengths)]


TASKS: dict[str, FusionTask] = {"dcmmoe": DcmmoeTask(DCMMOE, WIDTHS), "raav": RaavTask(RAAV, WIDTHS)}


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_is_the_windows_themselves_and_their_padding(name: str):
    task, [track] = TASKS[name], tracks(1, 0)
    windows = task.windows(track)
    length = max(end - start for start, end in windows)
    batch = batches.collate([task.example(track, window) for window in windows], length)
    for i, (start, end) in enumerate(windows):
        num = end - start
        assert batch.padding[i].tolist() == [False] * num + [True] * (length - num)
        assert np.array_equal(batch.gold[i, :num].numpy(), track.gold[start:end].astype(np.float32))
        assert batch.annotated[i, :num].all() and not batch.annotated[i, num:].any()
        for modality in ("face", "behavior"):
            series = track.series[modality]  # type: ignore[index]
            expected = np.concatenate([series.embedding[start:end], series.prediction[start:end]], axis=1)
            assert np.array_equal(batch.inputs[modality][i, :num].numpy(), expected)
            assert not batch.inputs[modality][i, num:].any()
    assert all(value.dtype in (torch.float32, torch.bool) for value in batch.inputs.values())


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("modality", MODALITIES)
def test_a_modality_that_is_taken_away_changes_nothing_however_loud_it_was(name: str, modality: str):
    torch.manual_seed(0)
    task, [track] = TASKS[name], tracks(1, 1)
    model = task.build().eval().double()
    series = track.series[modality]
    loud = Series(series.embedding + 100, series.prediction + 100, series.valid)
    blocks = track.blocks
    assert blocks is not None
    if modality == "audio":
        blocks = replace(blocks, embedding=blocks.embedding + 100, prediction=blocks.prediction + 100)
    louder = replace(track, series={**track.series, modality: loud}, blocks=blocks)
    quiet, noise = (task.predict(t, batches.run(task, model, t, CPU)) for t in (track, louder))
    assert np.abs(quiet - noise).max() > 1e-3
    quiet, noise = (
        task.predict(t, batches.run(task, model, t, CPU)) for t in (without(track, modality), without(louder, modality))
    )
    assert np.array_equal(quiet, noise)


@pytest.mark.parametrize("name", TASKS)
def test_gates_of_every_frame_sum_to_one_where_two_modalities_saw_it(name: str):
    torch.manual_seed(0)
    task, [track] = TASKS[name], tracks(1, 2)
    gates = task.gates(track, batches.run(task, task.build().double(), track, CPU))
    assert gates.shape == (track.num_frames, len(task.sources))
    valid = np.stack([track.series[m].valid for m in MODALITIES])
    enough = valid.sum(axis=0) >= 2 if name == "dcmmoe" else valid[:2].any(axis=0)
    assert gates[enough].sum(axis=1) == pytest.approx(1)
    assert not gates[~enough].any()


@pytest.mark.parametrize("name", TASKS)
def test_a_track_that_nothing_was_seen_of_has_no_windows_and_one_window_without_evidence_stays_finite(name: str):
    torch.manual_seed(0)
    task, [track] = TASKS[name], tracks(1, 3)
    blind = track
    for modality in MODALITIES:
        blind = without(blind, modality)
    assert task.windows(blind) == []
    partly = {}
    for modality, series in track.series.items():
        valid = series.valid.copy()
        valid[:30] = False
        partly[modality] = replace(series, valid=valid)
    assert track.blocks is not None
    blocks = replace(track.blocks, valid=np.zeros_like(track.blocks.valid))
    dim = replace(track, series=partly, blocks=blocks)
    fitted = fit(task, [dim], [track], device=CPU)
    predicted = task.predict(dim, batches.run(task, fitted.model, dim, CPU))
    assert np.isfinite(predicted).all() and all(np.isfinite(e.loss) for e in fitted.history)


def test_modality_dropout_takes_its_share_and_never_the_last_that_is_there():
    generator = torch.Generator().manual_seed(0)
    there = torch.rand((4000, 3), generator=generator) < 0.7
    kept = kept_modalities(there, 0.4, generator)
    some = there.any(dim=1)
    assert (kept & there).any(dim=1)[some].all()
    all_there = there.all(dim=1)
    lost = 1 - kept[all_there].float().mean().item()
    assert lost == pytest.approx(0.4 - 0.4**3, abs=0.03)  # what all would have lost is given back
    assert kept_modalities(there, 0.0, generator).all()


@pytest.mark.parametrize("name", TASKS)
def test_training_masks_what_modality_dropout_takes(name: str):
    task = (
        DcmmoeTask(replace(DCMMOE, modality_dropout=0.5), WIDTHS)
        if name == "dcmmoe"
        else RaavTask(replace(RAAV, modality_dropout=0.5), WIDTHS)
    )
    [track] = tracks(1, 4)
    windows = task.windows(track) * 20
    length = max(end - start for start, end in windows)
    inputs = batches.collate([task.example(track, window) for window in windows], length).inputs
    after = task.augment(inputs, torch.Generator().manual_seed(0))
    evidence = [key for key in inputs if "valid" in key]
    assert all((after[key] <= inputs[key]).all() for key in evidence)
    assert any((after[key] < inputs[key]).any() for key in evidence)
    assert all(after[key] is inputs[key] for key in inputs if key not in evidence)


def _curves(rank: int, name: str) -> tuple[list[float], list[list[float]]]:
    losses: list[float] = []

    def tell(step: Step) -> None:
        assert step.loss is not None
        losses.append(step.loss)

    fitted = fit(TASKS[name], tracks(7, 0), tracks(4, 1), device=CPU, on_step=tell)
    return losses, [epoch.ccc.tolist() for epoch in fitted.history]


@pytest.mark.parametrize("name", TASKS)
def test_two_processes_have_the_losses_and_scores_of_one_to_the_last_digits(name: str):
    losses, scores = _curves(0, name)
    assert len(losses) >= 20
    for shared_losses, shared_scores in spawn(_curves, 2, name):
        assert shared_losses == pytest.approx(losses, abs=1e-9)
        assert np.array(shared_scores) == pytest.approx(np.array(scores), abs=1e-12)


@pytest.mark.parametrize("name", TASKS)
def test_trust_shares_the_gates_out_to_modalities_and_windows_spread_where_they_overlap(name: str):
    torch.manual_seed(0)
    task, [track] = TASKS[name], tracks(1, 4)
    outputs = batches.run(task, task.build().eval(), track, CPU)
    trust, gates = task.trust(track, outputs), task.gates(track, outputs)
    assert sum(trust.values()) == pytest.approx(gates.sum(axis=1), abs=1e-6)
    if name == "dcmmoe":
        about_face = [i for i, source in enumerate(task.sources) if "face" in source]
        assert set(trust) == set(MODALITIES) and len(about_face) == 4
        assert trust["face"] == pytest.approx(gates[:, about_face].sum(axis=1) / 2, abs=1e-6)
    else:
        assert list(trust) == ["face", "behavior"] and trust["face"] == pytest.approx(gates[:, 0], abs=1e-6)
    spread, count = task.spread(track, outputs), np.zeros(track.num_frames)
    for start, end in outputs.windows:
        count[start:end] += 1
    assert (np.isnan(spread).any(axis=1) == (count < 2)).all() and np.nanmin(spread) >= 0 and np.nanmax(spread) > 0


def test_two_segments_with_the_same_frames_hear_each_their_own_sound():
    """A hole in the timestamps: the second segment begins in it, and the first one ends there."""
    [track] = tracks(1, 5)
    ranges = track.segments.ranges.copy()
    ranges[1] = ranges[0]
    track = replace(track, segments=replace(track.segments, ranges=ranges))
    task = TASKS["raav"]
    windows = task.windows(track)
    assert windows[0] == windows[1] and track.blocks is not None
    for number, window in enumerate(windows[:2]):
        audio = task.example(track, window).whole["audio"]
        assert np.array_equal(audio[0], track.blocks.embedding[number])
    copied = pickle.loads(pickle.dumps(windows))  # as it travels to a worker
    assert copied == windows and [w.segment for w in copied] == [w.segment for w in windows]
