"""The frame encoder's training task: crops, losses, learning rates, and how often each dataset is seen."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from affect.corpus.images import read_manifest
from affect.face.crop import letterbox
from affect.face.encoder_task import GradaTask
from affect.face.grada import Grada
from affect.learning.batches import Batch, Share, Task, load_here
from affect.learning.fit import fit
from affect.settings.names import EXPRESSIONS
from affect.settings.training import Loss
from tests.pictures import RUN, SIDE, Pictures, group, make_pictures

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return make_pictures(tmp_path_factory.mktemp("pictures"))


class Counting:
    """Loads in this process and counts the training pictures of every dataset and epoch."""

    def __init__(self) -> None:
        self.epochs: list[Counter[str]] = []
        self.pictures: list[Counter[str]] = []

    def __call__(self, task: Task, shares: Sequence[Share], device: torch.device) -> Iterator[Batch]:
        samples = [(item, window) for share in shares for item, window in share.samples]
        self.epochs.append(Counter(item.dataset for item, _ in samples))
        self.pictures.append(Counter(item.uris[start] for item, (start, _) in samples))
        return load_here(task, shares, device)


def counts(pictures: Pictures, weights: dict[str, float], epochs: int = 1) -> Counting:
    """What two datasets, of 32 and 16 pictures, are seen in epochs with weights."""
    run = replace(RUN, dataset_weights=weights, fit=replace(RUN.fit, max_epochs=epochs))
    counting, items = Counting(), read_manifest(pictures.wild) + read_manifest(pictures.lab)
    fit(GradaTask(run), items, read_manifest(pictures.development), device=CPU, loader=counting)
    assert all(seen == {"development": 16} for seen in counting.epochs[1::2])  # weights are of the training
    counting.epochs, counting.pictures = counting.epochs[::2], counting.pictures[::2]
    return counting


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({}, {"wild": 32, "lab": 16}),
        ({"elsewhere": 5.0}, {"wild": 32, "lab": 16}),
        ({"lab": 0.0}, {"wild": 32}),
        ({"wild": 0.0, "lab": 2.0}, {"lab": 32}),
        ({"wild": 2.0}, {"wild": 64, "lab": 16}),
        ({"wild": 1.0, "lab": 3.0}, {"wild": 32, "lab": 48}),
    ],
)
def test_a_whole_weight_is_how_often_each_picture_of_a_dataset_is_seen_in_every_epoch(
    weights: dict[str, float], expected: dict[str, int], pictures: Pictures
):
    seen = counts(pictures, weights, epochs=2)
    assert seen.epochs == [expected, expected]
    for dataset, manifest in (("wild", pictures.wild), ("lab", pictures.lab)):
        for uri in (uri for item in read_manifest(manifest) for uri in item.uris):
            assert seen.pictures[0][uri] == weights.get(dataset, 1.0)


def test_the_broken_part_of_a_weight_is_drawn_anew_in_every_epoch(pictures: Pictures):
    seen = counts(pictures, {"wild": 0.5, "lab": 1.25}, epochs=3)
    for pictures_seen, datasets in zip(seen.pictures, seen.epochs, strict=True):
        assert 6 <= datasets["wild"] <= 26 and 16 <= datasets["lab"] <= 28
        assert set(pictures_seen.values()) <= {1, 2}
    assert len({tuple(sorted(one.items())) for one in seen.pictures}) == 3


def test_a_face_is_cut_out_by_its_grown_box_and_without_one_the_whole_picture_is_taken(tmp_path: Path):
    rgb = np.random.default_rng(0).integers(0, 256, size=(32, 64, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    item = group([str(tmp_path / "a.png")] * 3, [[0.5, -0.5], [np.nan, np.nan], [0.1, 0.2]], [-1, 4, 0])
    box = np.array([[10.0, 5.0, 26.0, 21.0], [np.nan] * 4, [56.0, 0.0, 64.0, 8.0]])
    task = GradaTask(replace(RUN, box_growth=0.125))
    examples = [task.example(replace(item, box=box), (i, i + 1)) for i in range(3)]
    shares = [[8 / 64, 3 / 32, 28 / 64, 23 / 32], [0.0, 0.0, 1.0, 1.0], [55 / 64, 0.0, 1.0, 9 / 32]]
    for example, share in zip(examples, shares, strict=True):
        expected = letterbox(rgb, np.array([share]), SIDE)[0]
        assert np.array_equal(example.whole["crops"], expected)
        assert example.annotated.tolist() == [True]
    gold = np.concatenate([example.gold for example in examples])
    assert np.array_equal(gold, [[0.5, -0.5, np.nan], [np.nan, np.nan, 4.0], [0.1, 0.2, 0.0]], equal_nan=True)


def test_trunk_and_heads_learn_at_their_own_rates_and_every_parameter_at_one():
    task = GradaTask(RUN)
    model = task.build()
    heads, trunk = task.parameter_groups(model)
    assert (heads["lr"], trunk["lr"]) == (RUN.fit.learning_rate, RUN.trunk_learning_rate)
    assert {id(p) for p in trunk["params"]} == {id(p) for n, p in model.named_parameters() if n.startswith("trunk.")}
    listed = [id(p) for part in (heads, trunk) for p in part["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())


def test_a_trunk_from_a_file_is_where_training_starts(tmp_path: Path):
    torch.manual_seed(5)
    source = Grada(RUN.shape)
    path = tmp_path / "trunk.safetensors"
    save_file({f"features.{name}": value for name, value in source.trunk[0].state_dict().items()}, path)
    built = GradaTask(replace(RUN, trunk=str(path))).build()
    assert all(torch.equal(built.trunk[0].state_dict()[n], v) for n, v in source.trunk[0].state_dict().items())
    assert not torch.equal(built.affect.weight, source.affect.weight)


def reference_losses(gold: Any, predicted: Any, annotated: Any, loss: Loss) -> tuple[float | None, float | None]:
    """Both losses, point by point in float64, from lists of points."""
    points = [(g, p) for g, p, there in zip(gold, predicted, annotated, strict=True) if there]
    pairs = [(g[:2], p[:2]) for g, p in points if not math.isnan(g[0])]
    classes = [(int(g[2]), p[2:]) for g, p in points if not math.isnan(g[2])]
    affect = expression = None
    if pairs:
        affect = sum((p[d] - g[d]) ** 2 for g, p in pairs for d in range(2)) / (2 * len(pairs))
        if len(pairs) >= loss.min_points:
            agreement = []
            for d in range(2):
                x, y = [g[d] for g, _ in pairs], [p[d] for _, p in pairs]
                mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
                var_x = math.fsum((a - mean_x) ** 2 for a in x) / len(x)
                var_y = math.fsum((b - mean_y) ** 2 for b in y) / len(y)
                cov = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / len(x)
                agreement.append(2 * cov / (var_x + var_y + (mean_x - mean_y) ** 2 + 1e-8))
            weights = (loss.valence_weight, loss.arousal_weight)
            missing = sum(w * (1 - c) for w, c in zip(weights, agreement, strict=True)) / sum(weights)
            affect = missing + loss.error_weight * affect
    if classes:
        entropy = [math.log(math.fsum(math.exp(v) for v in logits)) - logits[number] for number, logits in classes]
        expression = math.fsum(entropy) / len(entropy)
    return affect, expression


@st.composite
def points(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Random gold with NaNs, predictions and what counts, of a batch of single pictures."""
    num = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    gold = np.concatenate([rng.uniform(-1, 1, (num, 2)), rng.integers(0, len(EXPRESSIONS), (num, 1))], axis=1)
    gold[rng.random(num) < draw(st.sampled_from([0.0, 0.4, 1.0])), :2] = np.nan
    gold[rng.random(num) < draw(st.sampled_from([0.0, 0.4, 1.0])), 2] = np.nan
    predicted = rng.normal(size=(num, 2 + len(EXPRESSIONS)))
    annotated = rng.random(num) > draw(st.sampled_from([0.0, 0.3, 1.0]))
    return torch.tensor(gold)[:, None], torch.tensor(predicted)[:, None], torch.tensor(annotated)[:, None]


WEIGHED = replace(
    RUN,
    affect_weight=0.7,
    expression_weight=1.5,
    fit=replace(
        RUN.fit, loss=Loss(valence_weight=0.7, arousal_weight=0.3, ccc_over="batch", error_weight=0.5, min_points=4)
    ),
)


@settings(deadline=None)
@given(batch=points())
def test_the_losses_are_those_of_the_labelled_pictures_worked_out_one_by_one(batch: tuple[Tensor, Tensor, Tensor]):
    task = GradaTask(WEIGHED)
    plain = [value[:, 0].tolist() for value in batch]
    expected = reference_losses(*plain, WEIGHED.fit.loss)
    got = task.losses(*batch)
    for value, reference in zip(got, expected, strict=True):
        assert float(value) == pytest.approx(reference or 0.0, rel=1e-5, abs=1e-5)
    parts = [w * r for w, r in zip((0.7, 1.5), expected, strict=True) if r is not None]
    assert float(task.loss(*batch)) == pytest.approx(sum(parts), rel=1e-5, abs=1e-5)


@settings(deadline=None)
@given(batch=points())
def test_what_is_not_labelled_has_no_part_in_the_loss_nor_in_its_gradient(batch: tuple[Tensor, Tensor, Tensor]):
    gold, predicted, annotated = batch
    task, predicted = GradaTask(WEIGHED), predicted.requires_grad_()
    loss = task.loss(gold, predicted, annotated)
    loss.backward()
    assert predicted.grad is not None and predicted.grad.isfinite().all()
    labelled = annotated[..., None] & ~torch.cat([gold[..., :2], gold[..., 2:].expand(-1, -1, 8)], dim=2).isnan()
    assert (predicted.grad[~labelled] == 0).all()
    other = torch.where(labelled, predicted.detach(), 1e3)
    again = task.loss(gold, other, annotated)
    assert float(again) == pytest.approx(float(loss.detach()), rel=1e-9)
