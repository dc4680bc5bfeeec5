"""The shared layers against their equations, written as loops."""

import math

import pytest
import torch
from torch import Tensor

from affect.layers import AttentionLayer, Projection, RegressionHead, attend, gated_softmax, sinusoids

pytestmark = pytest.mark.numeric


def norm(x: Tensor) -> Tensor:
    return (x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + 1e-5)


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def loop_layer(layer: AttentionLayer, e: int, x: Tensor, context: Tensor, masked: Tensor) -> Tensor:
    """Expert e on one window, point by point and head by head; x, context (T, H), masked (T)."""
    length, width = x.shape
    size = width // layer.heads
    positions = torch.tensor(
        [
            [(math.cos if i % 2 else math.sin)(t / 10_000 ** ((i - i % 2) / width)) for i in range(width)]
            for t in range(length)
        ],
        dtype=x.dtype,
    )
    params = dict(layer.named_parameters())

    def linear(name: str, v: Tensor) -> Tensor:
        return v @ params[f"{name}.weight"][e] + params[f"{name}.bias"][e, 0]

    def layer_norm(name: str, v: Tensor) -> Tensor:
        return norm(v) * params[f"{name}.weight"][e, 0, 0] + params[f"{name}.bias"][e, 0, 0]

    rows = []
    keys = [s for s in range(length) if not masked[s]]
    for t in range(length):
        q = x[t] + positions[t]
        heads = []
        for head in range(layer.heads):
            part = slice(head * size, (head + 1) * size)
            query = linear("query", q)[part]
            scores = [query @ linear("key", context[s] + positions[s])[part] / math.sqrt(size) for s in keys]
            weights = torch.stack(scores).exp() if keys else torch.zeros(0)
            read = torch.zeros(size, dtype=x.dtype)
            for weight, s in zip(weights, keys, strict=True):
                read = read + weight / weights.sum() * linear("value", context[s] + positions[s])[part]
            heads.append(read)
        y = layer_norm("attention_norm", q + linear("out", torch.cat(heads)))
        u = layer_norm("feedforward_norm", y + linear("contract", gelu(linear("expand", y))))
        rows.append(x[t] + u)
    return torch.stack(rows)


def randomized(layer: AttentionLayer) -> AttentionLayer:
    """The norms start as identities, which would hide a swapped or missing one."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return layer.double().eval()


@pytest.mark.parametrize("seed", range(3))
def test_attention_of_all_experts_at_once_is_the_equation_expert_by_expert(seed: int) -> None:
    torch.manual_seed(seed)
    layer = randomized(AttentionLayer(3, 8, 2, 0.1))
    x, context = torch.randn(2, 3, 2, 5, 8).double()
    masked = torch.rand(3, 2, 5) < 0.4
    masked[1, 0] = True
    fast = layer(x, context, sinusoids(5, like=x), masked)
    for e in range(3):
        for b in range(2):
            torch.testing.assert_close(fast[e, b], loop_layer(layer, e, x[e, b], context[e, b], masked[e, b]))


def test_positions_are_sines_and_cosines_that_start_at_zero() -> None:
    positions = sinusoids(50, like=torch.zeros(16, dtype=torch.float64))
    assert positions.dtype == torch.float64
    assert torch.equal(positions[0], torch.tensor([0.0, 1.0] * 8).double())
    # Angles are built in float32: a position of 50 is good to some 1e-6.
    assert positions[49, 6].item() == pytest.approx(math.sin(49 / 10_000 ** (6 / 16)), abs=1e-5)
    assert positions[49, 7].item() == pytest.approx(math.cos(49 / 10_000 ** (6 / 16)), abs=1e-5)


def test_gate_weights_sum_to_one_over_what_is_allowed_and_are_zero_elsewhere() -> None:
    allowed = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])
    weights = gated_softmax(1e4 * torch.randn(3, 3), allowed)
    assert torch.equal(weights[~allowed], torch.zeros(5 + 1))
    torch.testing.assert_close(weights.sum(-1), torch.tensor([1.0, 0.0, 1.0]))


def test_attention_without_a_key_is_zero_and_has_finite_gradients() -> None:
    q, k, v = (torch.randn(1, 2, 3, 4, requires_grad=True) for _ in range(3))
    masked = torch.tensor([[[True, True, True], [False, True, False]]])
    y = attend(q, k, v, masked, heads=2, dropout=0.0)
    assert torch.equal(y[0, 0], torch.zeros(3, 4))
    assert (y[0, 1] != 0).all()
    y.sum().backward()
    for x in (q, k, v):
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert torch.equal(x.grad[0, 0], torch.zeros(3, 4))


def test_masked_keys_change_nothing_however_large() -> None:
    layer = AttentionLayer(2, 8, 2, 0.1).eval()
    x, context = torch.randn(2, 2, 3, 6, 8)
    masked = torch.rand(2, 3, 6) < 0.5
    positions = sinusoids(6, like=x)
    spoilt = context.masked_fill(masked[..., None], 1e6)
    torch.testing.assert_close(layer(x, spoilt, positions, masked), layer(x, context, positions, masked))


def test_dropout_acts_in_training_only() -> None:
    layer = AttentionLayer(1, 8, 2, 0.5)
    x, masked = torch.randn(1, 2, 6, 8), torch.zeros(1, 2, 6, dtype=torch.bool)
    positions = sinusoids(6, like=x)
    assert not torch.equal(layer(x, x, positions, masked), layer(x, x, positions, masked))
    layer.eval()
    assert torch.equal(layer(x, x, positions, masked), layer(x, x, positions, masked))


def test_head_predicts_from_the_embedding_that_it_returns() -> None:
    torch.manual_seed(0)
    project, head = Projection(5, 8, 0.1).double().eval(), RegressionHead(8, 6, 0.1).double().eval()
    x = torch.randn(2, 3, 5).double()
    prediction, embedding = head(project(x))
    for b in range(2):
        for t in range(3):
            h = norm(project[0].weight @ x[b, t] + project[0].bias)
            e = gelu(norm(head.embed[0].weight @ h + head.embed[0].bias))
            torch.testing.assert_close(embedding[b, t], e)
            torch.testing.assert_close(prediction[b, t], head.predict.weight @ e + head.predict.bias)
