"""The selective state space against its recurrence, and what the future and padding cannot do."""

import math
import secrets
import sys
import types

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from affect.behavior import mamba
from affect.behavior.mamba import Mamba, MambaBlock, selective_scan
from affect.settings import models

pytestmark = pytest.mark.numeric

SMALL = models.Mamba(hidden=20, layers=2, state=3, kernel=4, head_hidden=7)
VISION = models.Mamba(states="vision", layers=4, hidden=128, kernel=3, dropout=0.1)


@pytest.fixture
def model() -> Mamba:
    torch.manual_seed(0)
    return Mamba(SMALL, 12).eval()


def loop_scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """The recurrence, one number at a time."""
    y = torch.zeros_like(x)
    for window in range(x.shape[0]):
        for channel in range(x.shape[2]):
            h = [0.0] * a.shape[1]
            for t in range(x.shape[1]):
                step, value = dt[window, t, channel].item(), x[window, t, channel].item()
                h = [
                    math.exp(step * a[channel, n].item()) * h[n] + step * b[window, t, n].item() * value
                    for n in range(len(h))
                ]
                y[window, t, channel] = sum(c[window, t, n].item() * h[n] for n in range(len(h)))
                y[window, t, channel] += d[channel].item() * value
    return y


def scan_inputs(length: int, requires_grad: bool = False) -> list[Tensor]:
    x, dt = torch.randn(2, length, 5).double(), torch.rand(2, length, 5).double()
    a, d = -torch.rand(5, 3).double() * 4, torch.randn(5).double()
    b, c = torch.randn(2, 2, length, 3).double()
    return [v.clone().requires_grad_(requires_grad) for v in (x, dt, a, b, c, d)]


@pytest.mark.parametrize(
    ("settings", "count"), [(models.Mamba(), 3_348_994), (VISION, 616_962)], ids=["multimodal", "vision"]
)
def test_it_has_as_many_parameters_as_published(settings: models.Mamba, count: int) -> None:
    assert sum(p.numel() for p in Mamba(settings, 2560).parameters()) == count


@pytest.mark.parametrize("seed", range(3))
def test_the_scan_is_the_recurrence(seed: int) -> None:
    torch.manual_seed(seed)
    inputs = scan_inputs(17)
    torch.testing.assert_close(selective_scan(*inputs), loop_scan(*inputs))


def test_the_scan_has_the_gradient_of_finite_differences() -> None:
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(selective_scan, scan_inputs(4, requires_grad=True))


@pytest.mark.parametrize("seed", range(3))
def test_a_block_is_its_equations(seed: int) -> None:
    torch.manual_seed(seed)
    block = MambaBlock(SMALL).double().eval()
    with torch.no_grad():
        block.norm.weight.uniform_(0.5, 2.0)
        block.D.uniform_(-2.0, 2.0)
    u = torch.randn(1, 9, 20).double()
    rows = []
    for t in range(9):
        scaled = u[0, t] / torch.sqrt((u[0, t] ** 2).mean() + 1e-5) * block.norm.weight
        rows.append(block.in_proj.weight @ scaled)
    projected = torch.stack(rows)
    x, z = projected[:, :20], projected[:, 20:]
    convolved = []
    for t in range(9):
        taps = [block.conv1d.weight[:, 0, k] * x[t - 3 + k] for k in range(4) if t - 3 + k >= 0]
        convolved.append(functional.silu(sum(taps) + block.conv1d.bias))
    x = torch.stack(convolved)
    rbc = x @ block.x_proj.weight.T
    r, b, c = rbc[:, :2], rbc[:, 2:5], rbc[:, 5:8]
    dt = torch.log1p(torch.exp(r @ block.dt_proj.weight.T + block.dt_proj.bias))
    y = loop_scan(x[None], dt[None], -block.A_log.exp(), b[None], c[None], block.D)[0]
    expected = u[0] + (y * z * torch.sigmoid(z)) @ block.out_proj.weight.T
    torch.testing.assert_close(block(u)[0], expected)


def plain_block(block: MambaBlock, p: dict[str, Tensor], u: Tensor) -> Tensor:
    """The block's equations step by step on given parameters, in their precision, with torch's own record of them."""
    scaled = u * torch.rsqrt(u.square().mean(dim=-1, keepdim=True) + 1e-5) * p["norm.weight"]
    x, z = (scaled @ p["in_proj.weight"].T).chunk(2, dim=-1)
    kernel = p["conv1d.weight"].shape[-1]
    before = torch.cat([x.new_zeros(len(x), kernel - 1, x.shape[2]), x], dim=1)
    taps = [p["conv1d.weight"][:, 0, k] * before[:, k : k + x.shape[1]] for k in range(kernel)]
    x = functional.silu(torch.stack(taps).sum(dim=0) + p["conv1d.bias"])
    r, b, c = (x @ p["x_proj.weight"].T).split([block.rank, block.state, block.state], dim=-1)
    dt = functional.softplus(r @ p["dt_proj.weight"].T + p["dt_proj.bias"])
    a = -p["A_log"].exp()
    h, rows = torch.zeros(len(x), x.shape[2], block.state, dtype=x.dtype), []
    for t in range(x.shape[1]):
        h = torch.exp(dt[:, t, :, None] * a) * h + (dt[:, t] * x[:, t])[..., None] * b[:, t, None]
        rows.append((h * c[:, t, None]).sum(dim=-1) + p["D"] * x[:, t])
    return u + (torch.stack(rows, dim=1) * functional.silu(z)) @ p["out_proj.weight"].T


@pytest.mark.parametrize("length", [2, 16, 64, 400])
@pytest.mark.parametrize("kernel", [3, 5])
def test_a_block_in_float32_is_a_plain_loop_in_float64_with_all_its_gradients(kernel: int, length: int):
    seed = secrets.randbelow(2**31)  # another input every time
    torch.manual_seed(seed)
    block = MambaBlock(models.Mamba(hidden=32, state=8, kernel=kernel)).eval()
    with torch.no_grad():
        block.norm.weight.uniform_(0.5, 2.0)
        block.D.uniform_(-2.0, 2.0)
    u = torch.randn(2, length, 32, requires_grad=True)
    doubles = {name: value.detach().double().requires_grad_() for name, value in block.named_parameters()}
    plain_u = u.detach().double().requires_grad_()
    weight = torch.randn(2, length, 32)
    mine, plain = block(u), plain_block(block, doubles, plain_u)
    (mine * weight).sum().backward()
    (plain * weight.double()).sum().backward()
    pairs = {"output": (mine, plain), "input": (u.grad, plain_u.grad)}
    pairs |= {name: (value.grad, doubles[name].grad) for name, value in block.named_parameters()}
    for name, (found, expected) in pairs.items():
        assert found is not None and expected is not None
        error = (found.double() - expected).abs().max() / expected.abs().max()
        assert error < 1e-5, f"{name}: {error:.1e} with seed {seed}"


@pytest.mark.parametrize("length", [1, 2, 33])
def test_the_scans_gradients_are_those_of_a_loop_that_torch_records(length: int):
    torch.manual_seed(length)
    inputs, weight = scan_inputs(length, requires_grad=True), torch.randn(2, length, 5).double()
    plain = [value.detach().clone().requires_grad_() for value in inputs]
    x, dt, a, b, c, d = plain
    h, rows = torch.zeros(2, 5, 3).double(), []
    for t in range(length):
        h = torch.exp(dt[:, t, :, None] * a) * h + (dt[:, t] * x[:, t])[..., None] * b[:, t, None]
        rows.append((h * c[:, t, None]).sum(dim=-1) + d * x[:, t])
    (torch.stack(rows, dim=1) * weight).sum().backward()
    (selective_scan(*inputs) * weight).sum().backward()
    for found, expected in zip(inputs, plain, strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


def test_a_gpu_without_mamba_ssm_is_told_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    mamba._kernel.cache_clear()
    with pytest.warns(UserWarning, match="mamba-ssm cannot be imported"):
        assert mamba._kernel() is None
    assert mamba._kernel() is None  # a second warning would be an error
    mamba._kernel.cache_clear()


def test_mamba_ssm_without_its_compiled_part_is_not_used(monkeypatch: pytest.MonkeyPatch):
    interface = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = scan = object()  # type: ignore[attr-defined]
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    mamba._kernel.cache_clear()
    with pytest.warns(UserWarning, match="mamba-ssm cannot be imported .*selective_scan_cuda"):
        assert mamba._kernel() is None
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", types.ModuleType("selective_scan_cuda"))
    mamba._kernel.cache_clear()
    assert mamba._kernel() is scan
    mamba._kernel.cache_clear()


def test_parameters_are_named_and_shaped_as_in_mamba_ssm() -> None:
    assert {name: tuple(p.shape) for name, p in MambaBlock(SMALL).named_parameters()} == {
        "norm.weight": (20,),
        "in_proj.weight": (40, 20),
        "conv1d.weight": (20, 1, 4),
        "conv1d.bias": (20,),
        "x_proj.weight": (8, 20),
        "dt_proj.weight": (20, 2),
        "dt_proj.bias": (20,),
        "A_log": (20, 3),
        "D": (20,),
        "out_proj.weight": (20, 20),
    }


def test_a_block_starts_with_mambas_decays_and_step_sizes() -> None:
    block = MambaBlock(models.Mamba())
    torch.testing.assert_close(block.A_log.exp(), torch.arange(1.0, 9.0).expand(256, 8))
    dt = functional.softplus(block.dt_proj.bias)
    assert dt.min() >= 0.99e-3
    assert dt.max() <= 1.01e-1
    assert dt.min() < 3e-3 < 3e-2 < dt.max()


def test_the_future_and_padding_change_nothing_before_them(model: Mamba) -> None:
    x, whole = torch.randn(2, 16, 12), torch.zeros(2, 16, dtype=torch.bool)
    padding = (torch.arange(16) >= 11).expand(2, 16)
    expected = model(x, whole)
    for changed in (model(torch.cat([x[:, :11], torch.randn(2, 5, 12)], dim=1), whole), model(x, padding)):
        torch.testing.assert_close(changed.prediction[:, :11], expected.prediction[:, :11])
        torch.testing.assert_close(changed.embedding[:, :11], expected.embedding[:, :11])
    assert not torch.allclose(model(x, padding).prediction[:, 11:], expected.prediction[:, 11:])


def test_what_lies_in_padding_is_not_read(model: Mamba) -> None:
    x, padding = torch.randn(2, 8, 12), torch.arange(8) >= torch.tensor([[8], [3]])
    spoilt = x.masked_fill(padding[..., None], torch.nan)
    assert torch.equal(model(spoilt, padding).prediction, model(x, padding).prediction)


def test_the_embedding_is_what_the_head_reads_after_the_last_norm(model: Mamba) -> None:
    prediction, embedding = model(torch.randn(2, 8, 12), torch.zeros(2, 8, dtype=torch.bool))
    torch.testing.assert_close(embedding.square().mean(dim=-1), torch.ones(2, 8), atol=1e-3, rtol=0)
    torch.testing.assert_close(model.head(embedding).prediction, prediction)


def test_a_shuffled_batch_gives_shuffled_outputs(model: Mamba) -> None:
    x, padding, order = torch.randn(5, 8, 12), torch.zeros(5, 8, dtype=torch.bool), torch.randperm(5)
    for shuffled, straight in zip(model(x[order], padding), model(x, padding), strict=True):
        torch.testing.assert_close(shuffled, straight[order])


def test_a_constant_input_of_400_points_stays_bounded() -> None:
    torch.manual_seed(0)
    inputs = scan_inputs(400)
    x, dt, a, b, c, d = inputs
    y = selective_scan(torch.ones_like(x), dt, a, b.sign(), c.sign(), torch.zeros_like(d))
    # |h| <= dt / (1 - exp(dt A)) <= dt + 1 / |A|: what flows out keeps up with what flows in.
    assert (y.abs() <= (dt.max() - 1 / a).sum(dim=1)).all()


def test_every_parameter_learns(model: Mamba) -> None:
    model.train()(torch.randn(2, 8, 12), torch.zeros(2, 8, dtype=torch.bool)).prediction.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and (p.grad != 0).any() for p in model.parameters())
