"""The face Transformer: its size, its oracle, and what padding cannot do."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from affect.face.transformer import FaceTransformer
from affect.layers import AttentionLayer, sinusoids
from affect.settings import models

pytestmark = pytest.mark.numeric

SMALL = models.FaceTransformer(hidden=16, layers=2, heads=4)


@pytest.fixture
def model() -> FaceTransformer:
    torch.manual_seed(0)
    return FaceTransformer(SMALL, 12).eval()


def test_it_has_as_many_parameters_as_published() -> None:
    assert sum(p.numel() for p in FaceTransformer(models.FaceTransformer(), 256).parameters()) == 2_112_002


@pytest.mark.parametrize("seed", range(3))
def test_it_is_a_stack_of_torchs_own_attention(seed: int) -> None:
    torch.manual_seed(seed)
    model = FaceTransformer(SMALL, 12).double().eval()
    x, padding = torch.randn(2, 9, 12).double(), torch.arange(9) >= torch.tensor([[9], [6]])

    def reference(layer: AttentionLayer, x: Tensor) -> Tensor:
        attention = nn.MultiheadAttention(16, 4, batch_first=True, dtype=torch.float64).eval()
        parts = (layer.query, layer.key, layer.value)
        with torch.no_grad():
            attention.in_proj_weight.copy_(torch.cat([part.weight[0].T for part in parts]))
            attention.in_proj_bias.copy_(torch.cat([part.bias[0, 0] for part in parts]))
            attention.out_proj.weight.copy_(layer.out.weight[0].T)
            attention.out_proj.bias.copy_(layer.out.bias[0, 0])
        q = x + sinusoids(9, like=x)
        y = functional.layer_norm(q + attention(q, q, q, key_padding_mask=padding)[0], (16,))
        inner = functional.gelu(y @ layer.expand.weight[0] + layer.expand.bias[0])
        return x + functional.layer_norm(y + inner @ layer.contract.weight[0] + layer.contract.bias[0], (16,))

    h = model.project(x)
    for layer in model.layers:
        h = reference(layer, h)
    torch.testing.assert_close(model(x, padding), model.head(h))


def test_padded_frames_change_nothing_however_large(model: FaceTransformer) -> None:
    x, padding = torch.randn(3, 10, 12), torch.arange(10) >= torch.tensor([[10], [7], [1]])
    prediction, embedding = model(x, padding)
    spoilt_prediction, spoilt_embedding = model(x.masked_fill(padding[..., None], 1e6), padding)
    torch.testing.assert_close(spoilt_prediction[~padding], prediction[~padding])
    torch.testing.assert_close(spoilt_embedding[~padding], embedding[~padding])


def test_a_padded_window_predicts_what_it_predicts_alone(model: FaceTransformer) -> None:
    x, padding = torch.randn(1, 10, 12), torch.arange(10)[None] >= 6
    alone = model(x[:, :6], padding[:, :6]).prediction
    torch.testing.assert_close(model(x, padding).prediction[:, :6], alone)


def test_a_shuffled_batch_gives_shuffled_outputs(model: FaceTransformer) -> None:
    x, padding = torch.randn(5, 8, 12), torch.arange(8) >= torch.randint(1, 9, (5, 1))
    order = torch.randperm(5)
    for shuffled, straight in zip(model(x[order], padding[order]), model(x, padding), strict=True):
        torch.testing.assert_close(shuffled, straight[order])


def test_the_order_of_frames_matters(model: FaceTransformer) -> None:
    x, padding = torch.randn(1, 8, 12), torch.zeros(1, 8, dtype=torch.bool)
    assert not torch.allclose(model(x.flip(1), padding).prediction.flip(1), model(x, padding).prediction, atol=1e-3)


def test_every_parameter_learns(model: FaceTransformer) -> None:
    model.train()(torch.randn(2, 8, 12), torch.zeros(2, 8, dtype=torch.bool)).prediction.square().sum().backward()
    # The key's bias shifts all scores of a query alike, so that the softmax does not see it.
    still = {name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-6}
    assert still <= {"layers.0.key.bias", "layers.1.key.bias"}
