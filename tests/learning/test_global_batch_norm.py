"""Batch normalisation over the shares of all processes: two of them do what torch does with the whole batch."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.distributed.nn
from torch import Tensor, nn

from affect.face.grada import Grada
from affect.layers import Output
from affect.learning.batches import Example, Outputs, Task, Window
from affect.learning.distributed import GlobalBatchNorm, synchronise_batch_norm
from affect.learning.fit import fit
from affect.settings.encoder import GradaShape
from affect.settings.training import Fit, Loss
from tests.processes import spawn

CPU = torch.device("cpu")
PROCESSES = 2


class Trace(NamedTuple):
    """What a layer did in some training steps and one evaluation.

    Args:
        outputs: of every step's batch, last of the evaluation.
        gradients: of every step's input.
        weight: gradient of the weight, of all steps.
        bias: the same of the bias.
        state: buffers afterwards.
    """

    outputs: list[np.ndarray]
    gradients: list[np.ndarray]
    weight: np.ndarray
    bias: np.ndarray
    state: dict[str, np.ndarray]


def layer_of(kind: type[nn.Module], momentum: float = 0.3, eps: float = 1e-3) -> Any:
    """A layer of three channels with parameters and statistics that are not the fresh ones."""
    layer = kind(3, eps=eps, momentum=momentum).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, -2.0, 3.0]))
        layer.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
        layer.running_mean.copy_(torch.tensor([0.1, 0.2, 0.3]))
        layer.running_var.copy_(torch.tensor([0.5, 1.0, 2.0]))
    return layer


def batches(axes: int, steps: int = 3) -> list[Tensor]:
    """Whole batches of six samples whose halves, and channels, differ much."""
    generator = torch.Generator().manual_seed(0)
    shape = (6, 3, 4, 5)[:axes]
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(steps)]
    offset = torch.arange(6.0).view(-1, *[1] * (axes - 1)) + torch.tensor([0.0, 10.0, -50.0]).view(
        1, 3, *[1] * (axes - 2)
    )
    return [batch * (1 + number) + offset for number, batch in enumerate(made)]


def trace(layer: Any, inputs: list[Tensor], weights: list[Tensor]) -> Trace:
    """Run a layer on inputs with the loss ``sum(weights * y ** 2)`` and then evaluate it on the first."""
    outputs, gradients = [], []
    layer.train()
    for x, weight in zip(inputs, weights, strict=True):
        own = x.clone().requires_grad_()
        y = layer(own)
        (weight * y.square()).sum().backward()
        assert own.grad is not None
        outputs.append(y.detach().numpy())
        gradients.append(own.grad.numpy())
    layer.eval()
    with torch.no_grad():
        outputs.append(layer(inputs[0]).numpy())
    state = {name: value.numpy().copy() for name, value in layer.named_buffers()}
    return Trace(outputs, gradients, layer.weight.grad.numpy(), layer.bias.grad.numpy(), state)


def _traces(rank: int) -> list[Trace]:
    """A process' shares, every second sample, of batches of two, three and four axes."""
    found = []
    for axes in (2, 3, 4):
        whole = batches(axes)
        shares = [[batch[rank::PROCESSES] for batch in part] for part in (whole, [b.sin() for b in whole])]
        found.append(trace(layer_of(GlobalBatchNorm), *shares))
    return found


def test_two_processes_normalise_as_one_does_with_the_whole_batch():
    results = spawn(_traces, PROCESSES)
    for number, (axes, kind) in enumerate([(2, nn.BatchNorm1d), (3, nn.BatchNorm1d), (4, nn.BatchNorm2d)]):
        whole = batches(axes)
        expected = trace(layer_of(kind), whole, [batch.sin() for batch in whole])
        shares = [result[number] for result in results]
        for rank, share in enumerate(shares):
            for own, reference in ((share.outputs, expected.outputs), (share.gradients, expected.gradients)):
                for got, wanted in zip(own, reference, strict=True):
                    np.testing.assert_allclose(got, wanted[rank::PROCESSES], rtol=0, atol=1e-6)
            assert share.state.keys() == expected.state.keys() >= {"running_mean", "running_var"}
            for name, value in expected.state.items():
                np.testing.assert_allclose(share.state[name], value, rtol=0, atol=1e-6)
        for name in ("weight", "bias"):
            both = sum(getattr(share, name) for share in shares)
            np.testing.assert_allclose(both, getattr(expected, name), rtol=0, atol=1e-6)
        own_mean = trace(layer_of(kind), [b[::2] for b in whole], [b[::2].sin() for b in whole]).outputs[0]
        assert np.abs(own_mean - shares[0].outputs[0]).max() > 0.1  # a share's own statistics are others


@pytest.mark.parametrize("axes", [2, 3, 4])
def test_in_use_it_does_what_torch_does_and_learns_nothing(axes: int):
    reference = layer_of(nn.BatchNorm2d if axes == 4 else nn.BatchNorm1d).eval()
    layer = layer_of(GlobalBatchNorm).eval()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    for batch in batches(axes):
        assert torch.equal(layer(batch), reference(batch))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_a_synchronised_encoder_has_the_same_names_and_weights_and_says_the_same():
    torch.manual_seed(0)
    model = Grada(GradaShape(width=0.1, depth=0.1, embedding=8)).eval()
    crops = torch.randn(3, 3, 32, 32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        expected = model(crops)
        num_norms = sum(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in model.modules())
        again = synchronise_batch_norm(model, CPU)
        said = again(crops)
    after = again.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], value) for name, value in before.items())
    assert num_norms > 5 and sum(isinstance(m, GlobalBatchNorm) for m in again.modules()) == num_norms
    assert all(torch.equal(one, other) for one, other in zip(said, expected, strict=True))
    plain = Grada(GradaShape(width=0.1, depth=0.1, embedding=8))
    plain.load_state_dict(after)
    with torch.inference_mode():
        assert torch.equal(plain.eval()(crops).affect, expected.affect)


def test_what_is_no_batch_normalisation_is_left_as_it_is():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.BatchNorm1d(3), nn.GroupNorm(1, 3))
    kinds = [type(module) for module in synchronise_batch_norm(model, CPU)]  # type: ignore[call-overload]
    assert kinds == [nn.Linear, nn.LayerNorm, GlobalBatchNorm, nn.GroupNorm]


class Item(NamedTuple):
    """Single points with an answer."""

    name: str
    x: np.ndarray
    gold: np.ndarray


class Normalised(nn.Module):
    """Two layers with a normalisation between them, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2)).double()

    def forward(self, x: Tensor) -> Output:
        prediction = self.layers(x)[:, None]
        return Output(prediction, prediction)


class PointTask(Task):
    """Every point is a window."""

    def __init__(self, settings: Fit) -> None:
        self.settings = settings

    def build(self) -> nn.Module:
        return Normalised()

    def windows(self, item: Item) -> list[Window]:
        return [(i, i + 1) for i in range(len(item.x))]

    def trains_on(self, item: Item, window: Window) -> bool:
        return True

    def example(self, item: Item, window: Window) -> Example:
        return Example({}, item.gold[slice(*window)], np.array([True]), {"x": item.x[window[0]]})

    def predict(self, item: Item, outputs: Outputs) -> np.ndarray:
        return np.concatenate(outputs.predictions)


def points(name: str, count: int, seed: int) -> Item:
    """Points around centres that drift, so that shares of a batch have other means than all of it."""
    x = np.random.default_rng(seed).normal(size=(count, 4)) + np.linspace(0, 5, count)[:, None]
    return Item(name, x, np.tanh(x[:, :2] - 2.5))


def _fit(rank: int) -> tuple[list[list[float]], dict[str, np.ndarray]]:
    settings = Fit(
        learning_rate=0.02, batch_size=8, max_epochs=4, ema_decay=0.7, loss=Loss(ccc_over="batch", error_weight=1.0)
    )
    training, development = [points("one", 40, 0), points("two", 24, 1)], [points("three", 30, 2), points("four", 9, 3)]
    fitted = fit(PointTask(settings), training, development, device=CPU)
    history = [[epoch.loss, *epoch.ccc.tolist()] for epoch in fitted.history]
    return history, {name: value.numpy() for name, value in fitted.model.state_dict().items()}


def test_two_processes_learn_weights_and_statistics_that_one_process_learns():
    history, state = _fit(0)
    assert history[0][0] - history[-1][0] > 0.1 and history[-1][3] > 0.1
    for shared_history, shared_state in spawn(_fit, PROCESSES):
        assert np.array(shared_history) == pytest.approx(np.array(history), abs=1e-6)
        assert list(shared_state) == list(state)
        assert all(shared_state[name] == pytest.approx(value, abs=1e-6) for name, value in state.items())
