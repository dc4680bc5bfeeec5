"""Person centring on people whose embeddings have an offset of their own: CCC on unseen people with and without it.

Tracks are synthetic (:mod:`affect.tracks.synthetic`): 60 people of 30 s, of whom 36 are learned from, ten select the
epoch and 14 are scored. The offset of each dimension of a person's embedding is drawn with a standard deviation of 0
(no identity) to 3; what expression changes has about .5.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import numpy as np
import torch

CPU = torch.device("cpu")
WIDTH, FRAMES, FPS = 16, 240, 8.0
LEARN, SELECT, PEOPLE = 36, 46, 60
STRENGTHS, SEEDS = (0.0, 1.0, 2.0, 3.0), range(3)


def _task(system: str, center: Any, seed: int) -> Any:  # noqa: ANN401 -- imported when the part runs
    """Task of a small model."""
    from affect.face.task import FaceTask
    from affect.fusion.task import DcmmoeTask, RaavTask
    from affect.settings.models import Dcmmoe, FaceTransformer, Raav
    from affect.settings.training import Fit, Loss
    from affect.tracks.synthetic import NOISE

    fit = Fit(learning_rate=2e-3, max_epochs=16, stop_patience=6, plateau_factor=0.5, plateau_patience=2, seed=seed)
    windows: Any = {"window_frames": 120, "window_hop_frames": 60}
    small: Any = {"hidden": 32, "heads": 4, "layers": 1, "center": center, "fit": fit}
    widths = dict.fromkeys(NOISE, WIDTH)
    if system == "face":
        return FaceTask(FaceTransformer(**small, **windows), WIDTH)
    if system == "dcmmoe":
        return DcmmoeTask(Dcmmoe(**small, **windows), widths)
    loss = Loss(ccc_over="batch", error_weight=0.01)
    return RaavTask(replace(Raav(**small, feedforward=64), fit=replace(fit, clip_norm=1.0, loss=loss)), widths)


def centering() -> None:
    """Prints the mean CCC on unseen people by system, strength and centring: mean of three seeds, and their range."""
    from affect.settings.names import Centering

    print("| system | strength | " + " | ".join(get_args(Centering)) + " |", flush=True)
    print("|---" * (2 + len(get_args(Centering))) + "|", flush=True)
    for system in ("face", "dcmmoe", "raav"):
        for strength in STRENGTHS:
            cells = [list(_scores(partial(_task, system, how), strength)) for how in get_args(Centering)]
            words = [f"{np.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})" for scores in cells]
            print(f"| {system} | {strength:g} | {' | '.join(words)} |", flush=True)


def _scores(make: Callable[[int], Any], strength: float) -> Iterator[float]:
    """Mean CCC on unseen people, by seed."""
    from affect.concordance import Moments, merge
    from affect.learning import batches
    from affect.learning.fit import fit
    from affect.tracks.synthetic import make_track

    for seed in SEEDS:
        rng, task = np.random.default_rng(seed), make(seed)
        given = [make_track(f"track{i}", FRAMES, rng, fps=FPS, width=WIDTH, identity=strength) for i in range(PEOPLE)]
        tracks = [task.prepare(_without_predictions(track)) for track in given]
        model = fit(task, tracks[:LEARN], tracks[LEARN:SELECT], device=CPU).model
        judged = [Moments.of(t.gold, task.predict(t, batches.run(task, model, t, CPU))) for t in tracks[SELECT:]]
        yield float(merge(judged).ccc().mean())


def _without_predictions(track: Any) -> Any:  # noqa: ANN401 -- a track
    """A track whose fusions see embeddings alone, since synthetic predictions have no offset."""
    series = {m: replace(s, prediction=np.zeros_like(s.prediction)) for m, s in track.series.items()}
    blocks = replace(track.blocks, prediction=np.zeros_like(track.blocks.prediction))
    return replace(track, series=series, blocks=blocks)
