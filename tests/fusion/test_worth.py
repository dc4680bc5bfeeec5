"""Fusing is worth it: on tracks whose modalities see the truth through own noise, on people that were never seen."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from affect.concordance import Moments, merge
from affect.corpus.track import Track
from affect.face.task import FaceTask
from affect.fusion.task import DcmmoeTask, FusionTask, RaavTask, without
from affect.learning import batches
from affect.learning.fit import fit
from affect.learning.task import TrackTask
from affect.modalities import MODALITIES
from affect.settings.models import Dcmmoe, FaceTransformer, Raav
from affect.settings.training import Fit, Loss
from affect.tracks.synthetic import make_track

CPU = torch.device("cpu")
WIDTH = 16
WIDTHS: dict[str, int] = dict.fromkeys(MODALITIES, WIDTH)
FIT = Fit(learning_rate=2e-3, max_epochs=16, stop_patience=6, plateau_factor=0.5, plateau_patience=2)
RAAV_FIT = replace(FIT, clip_norm=1.0, loss=Loss(ccc_over="batch", error_weight=0.01))
SINGLE = FaceTransformer(hidden=32, layers=1, heads=4, window_frames=120, window_hop_frames=60)
DCMMOE = Dcmmoe(hidden=32, layers=1, heads=4, window_frames=120, window_hop_frames=60)
RAAV = Raav(hidden=32, heads=4, feedforward=64)


def fusion(name: str, seed: int, modality_dropout: float) -> FusionTask:
    if name == "dcmmoe":
        return DcmmoeTask(replace(DCMMOE, modality_dropout=modality_dropout, fit=replace(FIT, seed=seed)), WIDTHS)
    return RaavTask(replace(RAAV, modality_dropout=modality_dropout, fit=replace(RAAV_FIT, seed=seed)), WIDTHS)


def alone(track: Track, modality: str) -> Track:
    """A track whose face model reads what the fusions read of a modality."""
    series = track.series[modality]
    both = np.concatenate([series.embedding, series.prediction], axis=1)
    return replace(track, parts={"face": replace(track.parts["face"], embedding=both, valid=series.valid)})


def learned(task: TrackTask, tracks: list[Track]) -> torch.nn.Module:
    """The first 36 tracks to learn from, ten to select on."""
    return fit(task, tracks[:36], tracks[36:46], device=CPU).model


def score(task: TrackTask, model: torch.nn.Module, tracks: list[Track]) -> float:
    """Mean CCC on the 14 tracks that are left."""
    judged = [Moments.of(t.gold, task.predict(t, batches.run(task, model, t, CPU))) for t in tracks[46:]]
    return float(merge(judged).ccc().mean())


@pytest.mark.slow
def test_both_fusions_beat_the_best_modality_and_bear_the_loss_of_any():
    seed = 0
    rng = np.random.default_rng(seed)
    tracks = [make_track(f"track{i}", 240, rng, fps=8.0, width=WIDTH) for i in range(60)]
    single: dict[str, float] = {}
    for modality in MODALITIES:
        task, own = (
            FaceTask(replace(SINGLE, fit=replace(FIT, seed=seed)), WIDTH + 2),
            [alone(t, modality) for t in tracks],
        )
        single[modality] = score(task, learned(task, own), own)
    print(f"seed {seed}: " + ", ".join(f"{m} {value:.3f}" for m, value in single.items()))
    for name in ("dcmmoe", "raav"):
        plain = fusion(name, seed, 0.0)
        whole = score(plain, learned(plain, tracks), tracks)
        hardened = fusion(name, seed, 0.3)
        model = learned(hardened, tracks)
        left = {m: score(hardened, model, [without(t, m) for t in tracks]) for m in MODALITIES}
        print(
            f"{name} {whole:.3f}, with modality dropout and without "
            + ", ".join(f"{m} {v:.3f}" for m, v in left.items())
        )
        assert whole > max(single.values())
        for lost, value in left.items():
            assert value > max(single[m] for m in MODALITIES if m != lost) - 0.05
