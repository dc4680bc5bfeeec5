"""Person centring: values against plain loops, and through the tasks."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from affect.face.task import FaceTask
from affect.fusion.task import DcmmoeTask, RaavTask
from affect.learning import batches
from affect.learning.centering import centred, centred_width
from affect.modalities import MODALITIES
from affect.settings.address import address
from affect.settings.models import Dcmmoe, FaceTransformer, Raav
from affect.settings.names import Centering
from affect.tracks.synthetic import make_track

WIDTH = 8
WIDTHS: dict[str, int] = dict.fromkeys(MODALITIES, WIDTH)


def task_of(name: str, center: Centering) -> Any:
    small: Any = {"hidden": 16, "heads": 2, "layers": 1, "center": center}
    windows: Any = {"window_frames": 40, "window_hop_frames": 20}
    if name == "face":
        return FaceTask(FaceTransformer(**small, **windows), WIDTH)
    if name == "dcmmoe":
        return DcmmoeTask(Dcmmoe(**small, **windows), WIDTHS)
    return RaavTask(Raav(**small, feedforward=32), WIDTHS)


def test_the_median_of_what_was_seen_is_subtracted():
    rng = np.random.default_rng(0)
    values, valid = rng.normal(size=(9, 3)), rng.random(9) < 0.6
    assert centred(values, valid, "none") is values
    expected = np.stack([values[:, d] - sorted(values[valid, d])[valid.sum() // 2] for d in range(3)], axis=1)
    if valid.sum() % 2:
        np.testing.assert_allclose(centred(values, valid, "median"), expected)
    both = centred(values, valid, "both")
    np.testing.assert_array_equal(both, np.concatenate([values, centred(values, valid, "median")], axis=1))
    np.testing.assert_array_equal(centred(values, np.zeros(9, dtype=bool), "median"), values)
    assert [centred_width(3, how) for how in ("none", "median", "both")] == [3, 3, 6]


@pytest.mark.parametrize("name", ["face", "dcmmoe", "raav"])
def test_predictions_by_relative_values_ignore_what_is_constant_in_a_person(name: str):
    """An offset of the embeddings changes predictions as they are, and not those relative to the median."""
    tracks = {
        strength: make_track("a", 80, np.random.default_rng(1), fps=8.0, width=WIDTH, identity=strength)
        for strength in (0.0, 2.0)
    }
    for center in ("none", "median"):
        task = task_of(name, center)
        torch.manual_seed(0)
        model = task.build().eval()
        found = []
        for track in tracks.values():
            # the generator draws the offset after everything else of the series, so that the rest is equal
            read = task.prepare(replace(track, gold=tracks[0.0].gold))
            found.append(task.predict(read, batches.run(task, model, read, torch.device("cpu"))))
        same = np.abs(found[0] - found[1]).max() < 1e-4
        assert same == (center == "median"), center


@pytest.mark.parametrize("name", ["face", "dcmmoe", "raav"])
def test_both_is_twice_as_wide(name: str):
    task = task_of(name, "both")
    track = task.prepare(make_track("a", 80, np.random.default_rng(1), fps=8.0, width=WIDTH))
    outputs = batches.run(task, task.build().eval(), track, torch.device("cpu"))
    assert np.isfinite(task.predict(track, outputs)).all()


def test_addresses_at_the_default_hold():
    """The address of a setting's class is of its fields that are not marked as added, at their default."""
    assert address(Raav()) != address(Raav(center="both"))
    assert address(FaceTransformer()) == address(FaceTransformer(center="none"))
