"""Half precision on a CPU: every model against float64, and what torch's own grouped convolution is worth there."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from affect.audio.wavlm import WavlmRegressor, load_backbone
from affect.behavior.mamba import Mamba
from affect.console.tiny import make_wavlm
from affect.face.grada import Grada
from affect.face.transformer import FaceTransformer
from affect.fusion.dcmmoe import DCMMOE
from affect.fusion.raav import RAAV
from affect.settings import models
from affect.settings.encoder import GradaShape
from affect.settings.models import Dcmmoe, Raav, Wavlm

pytestmark = pytest.mark.numeric
MULTIPLE = 3.0
"""Of the error that rounding every product's operands and result makes in float64: other orders of summing, and types
that autocast chooses otherwise, stay below it; a product that is wrong does not."""
SECONDS = 16_000


class Rounded(TorchDispatchMode):
    """Products whose operands and results are rounded to a type, computed exactly: half precision by arithmetic."""

    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self._kind = kind

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        products = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.convolution}
        products.add(aten._scaled_dot_product_flash_attention_for_cpu)
        if function.overloadpacket not in products:
            return function(*args, **(kwargs or {}))
        return tree_map(self._round, function(*tree_map(self._round, args), **(kwargs or {})))

    def _round(self, value: Any) -> Any:
        floats = isinstance(value, Tensor) and value.is_floating_point()
        return value.to(self._kind).to(value.dtype) if floats else value


def wavlm(folder: Path) -> tuple[nn.Module, tuple[Tensor, ...]]:
    make_wavlm(folder)
    settings = Wavlm(trained_layers=1, pooling_hidden=8, hidden=12)
    model = WavlmRegressor(settings, load_backbone(str(folder), "main"))
    return model, (torch.randn(2, 4 * SECONDS), torch.tensor([4 * SECONDS, 40_000]))


def mamba(_: Path) -> tuple[nn.Module, tuple[Tensor, ...]]:
    settings = models.Mamba(hidden=64, layers=3, state=4, kernel=5, head_hidden=16)
    return Mamba(settings, 24), (torch.randn(3, 16, 24), torch.zeros(3, 16, dtype=torch.bool))


def grada(_: Path) -> tuple[nn.Module, tuple[Tensor, ...]]:
    model = Grada(GradaShape(width=0.25, depth=0.5, embedding=16, crop_px=64))
    crops = torch.randn(6, 3, 64, 64)
    with torch.no_grad():
        for _ in range(50):
            model.train()(crops)  # statistics of its own, without which a random network says nearly a constant
    return model, (crops,)


def transformer(_: Path) -> tuple[nn.Module, tuple[Tensor, ...]]:
    settings = models.FaceTransformer(hidden=32, layers=3, heads=4, window_frames=40)
    return FaceTransformer(settings, 24), (torch.randn(2, 40, 24), torch.zeros(2, 40, dtype=torch.bool))


class Flat(nn.Module):
    """DCMMOE with its two modalities side by side."""

    def __init__(self) -> None:
        super().__init__()
        settings = Dcmmoe(hidden=32, layers=2, heads=4, modalities=("face", "audio"))
        self.model = DCMMOE(settings, {"face": 10, "audio": 12})

    def forward(self, face: Tensor, audio: Tensor, valid: Tensor, padding: Tensor) -> Any:
        return self.model(features={"face": face, "audio": audio}, valid=valid, padding=padding)


class FlatRaav(nn.Module):
    """RAAV with its visual modalities as positional arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.model = RAAV(Raav(hidden=32, feedforward=64), {"face": 10, "behavior": 12, "audio": 8})

    def forward(self, face: Tensor, behavior: Tensor, audio: Tensor, *masks: Tensor) -> Any:
        return self.model(audio, *masks, face=face, behavior=behavior)


def dcmmoe(_: Path) -> tuple[nn.Module, tuple[Tensor, ...]]:
    masks = torch.rand(2, 2, 40) > 0.2, torch.zeros(2, 40, dtype=torch.bool)
    return Flat(), (torch.randn(2, 40, 10), torch.randn(2, 40, 12), *masks)


def raav(_: Path) -> tuple[nn.Module, tuple[Tensor, ...]]:
    visual = torch.randn(2, 40, 10), torch.randn(2, 40, 12)
    masks = torch.rand(2, 2, 40) > 0.2, torch.rand(2, 4) > 0.2, torch.zeros(2, 40, dtype=torch.bool)
    return FlatRaav(), (*visual, torch.randn(2, 4, 8), *masks)


def wider(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def answers(model: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    outputs = model(*inputs)
    return torch.cat([part.double().flatten() for part in (outputs if isinstance(model, Grada) else outputs[:2])])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("make", [wavlm, mamba, grada, transformer, dcmmoe, raav], ids=lambda f: f.__name__)
def test_half_precision_errs_as_much_as_its_rounding_and_its_gradients_are_finite(
    make: Callable[[Path], tuple[nn.Module, tuple[Tensor, ...]]], kind: torch.dtype, tmp_path: Path
):
    torch.manual_seed(0)
    model, inputs = make(tmp_path)
    model.eval()
    reference, wide = copy.deepcopy(model).double(), tuple(map(wider, inputs))
    with torch.no_grad():
        exact = answers(reference, wide)
        with Rounded(kind):
            by_rounding = (answers(reference, wide) - exact).square().mean().sqrt()
    with torch.autocast("cpu", kind):
        half = answers(model, inputs)
    error = (half - exact).square().mean().sqrt()
    assert 0 < error < MULTIPLE * by_rounding
    half.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("make", [wavlm, mamba, grada, transformer, dcmmoe, raav], ids=lambda f: f.__name__)
def test_predictions_have_more_digits_than_bfloat16(
    make: Callable[[Path], tuple[nn.Module, tuple[Tensor, ...]]], tmp_path: Path
):
    torch.manual_seed(0)
    model, inputs = make(tmp_path)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = model.eval()(*inputs)
    found = (outputs.affect, outputs.expression) if isinstance(model, Grada) else outputs[:1]
    for predicted in found:
        assert predicted.dtype == torch.float32
        assert (predicted != predicted.bfloat16().float()).float().mean() > 0.9


@pytest.mark.parametrize(
    ("channels", "kernel", "groups"), [(32, 16, 4), (1024, 128, 16)], ids=["the tests' WavLM", "WavLM-Large"]
)
def test_torchs_own_grouped_convolution_is_right_in_bfloat16_but_with_amx(channels: int, kernel: int, groups: int):
    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(s, generator=generator) for s in ((2, channels, 199), (channels, channels // groups, kernel))
    )
    x, weight = x.bfloat16(), weight.bfloat16()
    exact = functional.conv1d(x.double(), weight.double(), padding=kernel // 2, groups=groups)
    error = (functional.conv1d(x, weight, padding=kernel // 2, groups=groups) - exact).norm() / exact.norm()
    most = os.environ.get("ONEDNN_MAX_CPU_ISA", "AMX")
    if torch.cpu._is_amx_tile_supported() and "AMX" in most:
        assert error > 0.1, f"torch {torch.__version__} has mended it: affect.layers.grouped_convolution can go"
    else:
        assert error < 2**-8  # the result's rounding is at most half of it
