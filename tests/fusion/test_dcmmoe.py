"""The directed mixture of experts: its size, the batched experts against a loop over pairs, its rules of evidence."""

import math
from itertools import permutations, product

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from affect.fusion.dcmmoe import DCMMOE
from affect.layers import ExpertNorm, FusionOutput, sinusoids
from affect.settings.models import Dcmmoe

pytestmark = pytest.mark.numeric

SMALL = Dcmmoe(hidden=16, layers=2, heads=4)
WIDTHS = {"face": 10, "behavior": 7, "audio": 9}
PAIRS = list(permutations(range(3), 2))


@pytest.fixture
def model() -> DCMMOE:
    torch.manual_seed(0)
    return DCMMOE(SMALL, WIDTHS).eval()


def make_windows(batch: int = 3, length: int = 8) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    features = {m: torch.randn(batch, length, width) for m, width in WIDTHS.items()}
    valid = torch.rand(batch, 3, length) < 0.6
    padding = torch.arange(length) >= torch.randint(length // 2, length + 1, (batch, 1))
    return features, valid, padding


def normed(norm: ExpertNorm, e: int, x: Tensor) -> Tensor:
    return functional.layer_norm(x, (16,), norm.weight[e, 0, 0], norm.bias[e, 0, 0])


def double_model(seed: int) -> DCMMOE:
    """In float64, and without parameters that start as identities, which would hide a mistake."""
    torch.manual_seed(seed)
    model = DCMMOE(SMALL, WIDTHS).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def reference(model: DCMMOE, features: dict[str, Tensor], valid: Tensor, padding: Tensor) -> FusionOutput:
    """One window (T, D_m), (M, T), (T), pair by pair with plain matrix products on the stacked weights."""
    seen = valid & ~padding
    h = [model.project[m](features[m]) for m in WIDTHS]
    length = len(padding)
    positions = sinusoids(length, like=h[0])
    experts = []
    for e, (q_of, k_of) in enumerate(PAIRS):
        u = h[q_of]
        for layer in model.layers:
            query = (u + positions) @ layer.query.weight[e] + layer.query.bias[e]
            key = (h[k_of] + positions) @ layer.key.weight[e] + layer.key.bias[e]
            value = (h[k_of] + positions) @ layer.value.weight[e] + layer.value.bias[e]
            heads = []
            for head in range(4):
                part = slice(4 * head, 4 * head + 4)
                scores = query[:, part] @ key[seen[k_of], part].T / math.sqrt(4)
                heads.append(scores.softmax(dim=-1) @ value[seen[k_of], part])
            attended = torch.cat(heads, dim=-1) @ layer.out.weight[e] + layer.out.bias[e]
            y = normed(layer.attention_norm, e, u + positions + attended)
            inner = functional.gelu(y @ layer.expand.weight[e] + layer.expand.bias[e])
            u = u + normed(layer.feedforward_norm, e, y + inner @ layer.contract.weight[e] + layer.contract.bias[e])
        experts.append(u)
    frames, gates = [], torch.zeros(length, 6).double()
    for t in range(length):
        there = [m for m in range(3) if seen[m, t]]
        z = torch.stack([h[m][t] for m in there]).mean(dim=0) if there else torch.zeros(16).double()
        allowed = [e for e, pair in enumerate(PAIRS) if set(pair) <= set(there)]
        if allowed:
            weights = model.gate(z)[allowed].softmax(dim=0)
            gates[t, allowed] = weights.detach()
            z = sum(w * experts[e][t] for w, e in zip(weights, allowed, strict=True))
        frames.append(z)
    prediction, embedding = model.head(torch.stack(frames)[None])
    return FusionOutput(prediction, embedding, gates[None])


@pytest.mark.parametrize(
    ("modalities", "count"), [(("face", "behavior", "audio"), 12_142_088), (("face", "audio"), 4_158_724)]
)
def test_it_has_as_many_parameters_as_published(modalities: tuple[str, ...], count: int) -> None:
    model = DCMMOE(Dcmmoe(modalities=modalities), dict.fromkeys(modalities, 258))
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("seed", range(3))
def test_all_experts_at_once_are_the_loop_over_pairs(seed: int) -> None:
    model = double_model(seed)
    features, valid, padding = make_windows()
    features = {m: x.double() for m, x in features.items()}
    valid[0, 2] = False  # a modality that is missing throughout
    fast = model(features, valid, padding)
    for b in range(3):
        slow = reference(model, {m: x[b] for m, x in features.items()}, valid[b], padding[b])
        for ours, theirs in zip(fast, slow, strict=True):
            torch.testing.assert_close(ours[b], theirs[0])


def test_gradients_of_all_experts_at_once_are_those_of_the_loop_over_pairs() -> None:
    model = double_model(3)
    features, valid, padding = make_windows()
    features = {m: x.double().requires_grad_() for m, x in features.items()}
    weight = torch.randn(3, 8, 2).double()
    wanted = [*model.parameters(), *features.values()]

    def gradients(predictions: list[Tensor]) -> list[Tensor]:
        loss = (torch.stack(predictions) * weight)[~padding].sum()
        return list(torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True))

    fast = gradients(list(model(features, valid, padding).prediction))
    rows = [reference(model, {m: x[b] for m, x in features.items()}, valid[b], padding[b]) for b in range(3)]
    slow = gradients([row.prediction[0] for row in rows])
    assert all(bool(gradient.any()) for gradient in slow)
    for ours, theirs in zip(fast, slow, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)


def test_modalities_are_read_in_the_order_of_the_settings() -> None:
    torch.manual_seed(0)
    model = DCMMOE(Dcmmoe(modalities=("audio", "face"), hidden=16, layers=1, heads=4), WIDTHS).eval()
    features, _, padding = make_windows()
    only_audio = torch.tensor([True, False])[None, :, None].expand(3, 2, 8)
    changed = {**features, "face": torch.randn(3, 8, 10)}
    assert torch.equal(model(changed, only_audio, padding).prediction, model(features, only_audio, padding).prediction)
    changed = {**features, "audio": torch.randn(3, 8, 9)}
    ours, theirs = (model(x, only_audio, padding).prediction[~padding] for x in (changed, features))
    assert not torch.allclose(ours, theirs)


def test_invalid_and_padded_frames_change_nothing_however_large(model: DCMMOE) -> None:
    features, valid, padding = make_windows()
    seen = valid & ~padding[:, None]
    spoilt = {m: x.masked_fill(~seen[:, i, :, None], 1e6) for i, (m, x) in enumerate(features.items())}
    for ours, theirs in zip(model(spoilt, valid, padding), model(features, valid, padding), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gate_weights_sum_to_one_over_the_pairs_that_are_there(model: DCMMOE) -> None:
    features, valid, padding = make_windows(batch=8)
    gates = model(features, valid, padding).gates
    seen = valid & ~padding[:, None]
    allowed = torch.stack([seen[:, q] & seen[:, k] for q, k in PAIRS], dim=-1)
    assert torch.equal(gates > 0, allowed)
    torch.testing.assert_close(gates.sum(dim=-1), allowed.any(dim=-1).float())


@pytest.mark.parametrize("there", list(product([False, True], repeat=3)))
def test_any_subset_of_modalities_gives_finite_outputs_and_gradients(
    model: DCMMOE, there: tuple[bool, bool, bool]
) -> None:
    features, _, padding = make_windows()
    valid = torch.tensor(there)[None, :, None].expand(3, 3, 8).clone()
    valid[1, :, 3:] = False
    output = model.train()(features, valid, padding)
    assert all(x.isfinite().all() for x in output)
    (output.prediction.square().sum() + output.embedding.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_a_lone_modality_is_passed_on_and_nothing_at_all_is_zero(model: DCMMOE) -> None:
    features, _, _ = make_windows()
    padding = torch.zeros(3, 8, dtype=torch.bool)
    valid = torch.zeros(3, 3, 8, dtype=torch.bool)
    valid[:, 1] = True
    output = model(features, valid, padding)
    expected = model.head(model.project["behavior"](features["behavior"]))
    torch.testing.assert_close(output.prediction, expected.prediction)
    nothing = model(features, torch.zeros_like(valid), padding)
    torch.testing.assert_close(nothing.prediction, model.head(torch.zeros(3, 8, 16)).prediction)
    assert not output.gates.any()
    assert not nothing.gates.any()


def test_a_shuffled_batch_gives_shuffled_outputs(model: DCMMOE) -> None:
    features, valid, padding = make_windows(batch=5)
    order = torch.randperm(5)
    shuffled = model({m: x[order] for m, x in features.items()}, valid[order], padding[order])
    for ours, theirs in zip(shuffled, model(features, valid, padding), strict=True):
        torch.testing.assert_close(ours, theirs[order])
