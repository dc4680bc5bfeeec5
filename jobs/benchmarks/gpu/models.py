"""Every model on a device against a CPU: float32 forward and gradients, bfloat16, the frame encoder as shipped."""

import copy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from affect.settings import models as settings
from affect.settings.encoder import CropAugment, GradaShape
from affect.settings.extraction import Face
from affect.settings.training import Loss

from ..training import MODALITIES, WIDTH
from . import training
from .book import Book
from .collectives import collectives
from .compare import difference, median_s, moved
from .states import states

WIDTHS = dict.fromkeys(MODALITIES, WIDTH)
SMALL_GRADA = GradaShape(width=0.25, depth=0.4, embedding=32, crop_px=96)
"""Size of the frame encoder with ``--quick``."""


class Case(NamedTuple):
    """A model with random inputs that have holes.

    Args:
        name: name of the model.
        build: builds it with random weights.
        inputs: its keyword arguments.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: dict[str, Any]


def models(book: Book, device: torch.device, *, quick: bool) -> None:
    """Checks every model, then trains each of them."""
    from affect.behavior import mamba

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    book.check("ceilings", lambda: ceilings(book, device, quick=quick))
    folder = Path(tempfile.mkdtemp())
    with mock.patch.object(mamba, "_kernel", lambda: None):  # it has its own part
        for case in cases(folder / "wavlm", quick=quick):
            book.check(f"{case.name} parity", lambda case=case: parity(book, case, device))  # type: ignore[misc]
        book.check("encoder", lambda: encoder(book, device, quick=quick))
        book.check("augmentation", lambda: augmentation(book, device))
        book.check("tiny Qwen", lambda: states(book, device, folder / "qwen"))
        training.trainings(book, device, folder / "wavlm", quick=quick)
        book.check("collectives", lambda: collectives(book, device), 5)


def ceilings(book: Book, device: torch.device, *, quick: bool) -> None:
    """Rates of a large matrix product, of copies within the memory and from the host."""
    size, kind = 1024 if quick else 8192, torch.bfloat16 if device.type == "cuda" else torch.float32
    a = torch.randn(size, size, device=device).to(kind)
    book.note("matrix product", 2 * size**3 / median_s(lambda: a @ a, device, 5) / 1e12, "TFLOP/s")
    x = torch.randn((1 if quick else 256) * 2**20, device=device)
    y, host = torch.empty_like(x), torch.empty(x.numel() // 4)
    book.note("copy", 2 * 4 * x.numel() / median_s(lambda: y.copy_(x), device, 5) / 1e12, "TB/s read and written")
    book.note("pageable host to device", 4 * host.numel() / median_s(lambda: host.to(device), device) / 1e9, "GB/s")


def cases(folder: Path, *, quick: bool) -> Iterator[Case]:
    """Every model at its true size, but WavLM, and with ``quick`` all of them, tiny.

    Args:
        folder: folder for a tiny WavLM.
        quick: whether all models are tiny.
    """
    from affect.behavior.mamba import Mamba
    from affect.face.grada import Grada
    from affect.face.transformer import FaceTransformer

    small: dict[str, Any] = {"hidden": 32, "layers": 2} if quick else {}
    heads: dict[str, Any] = {**small, "heads": 4} if quick else {}
    batch, frames, points, width = (2, 40, 8, 64) if quick else (4, 400, 128, 2560)
    generator = torch.Generator().manual_seed(1)
    padding = _tail(batch, frames)
    faces = {"x": torch.randn(batch, frames, 256, generator=generator), "padding": padding}
    yield Case("face", lambda: FaceTransformer(settings.FaceTransformer(**heads), 256), faces)
    yield from _fusions(heads, padding, generator, quick=quick)
    segments = {"x": torch.randn(batch, points, width, generator=generator), "padding": _tail(batch, points)}
    yield Case("mamba", lambda: Mamba(settings.Mamba(**small), width), segments)
    shape = SMALL_GRADA if quick else GradaShape()
    crops = torch.randn(2 if quick else 16, 3, shape.crop_px, shape.crop_px, generator=generator)
    yield Case("grada", lambda: Grada(shape), {"crops": crops})
    yield _wavlm(folder, batch, generator)


def _fusions(heads: dict[str, Any], padding: Tensor, generator: torch.Generator, *, quick: bool) -> Iterator[Case]:
    """Both fusions; some windows have no evidence at all, or none of a modality."""
    from affect.fusion.dcmmoe import DCMMOE
    from affect.fusion.raav import RAAV

    batch, frames = padding.shape
    features = {m: torch.randn(batch, frames, width, generator=generator) for m, width in WIDTHS.items()}
    valid = torch.rand(batch, 3, frames, generator=generator) < 0.8
    valid[0, :, : frames // 4] = False
    valid[1, 1] = False
    directed = {"features": features, "valid": valid, "padding": padding}
    yield Case("dcmmoe", lambda: DCMMOE(settings.Dcmmoe(**heads), WIDTHS), directed)
    length = 30 if quick else 120
    sizes = {"face": length, "behavior": length, "audio": 4}
    inputs = {m: torch.randn(batch, points, WIDTH, generator=generator) for m, points in sizes.items()}
    inputs["visual_valid"] = torch.rand(batch, 2, length, generator=generator) < 0.8
    inputs["audio_valid"] = torch.rand(batch, 4, generator=generator) < 0.8
    inputs["audio_valid"][0] = False
    inputs["padding"] = _tail(batch, length)
    sizes_of_raav = {**heads, **({"feedforward": 64} if quick else {})}
    yield Case("raav", lambda: RAAV(settings.Raav(**sizes_of_raav), WIDTHS), inputs)


def _wavlm(folder: Path, batch: int, generator: torch.Generator) -> Case:
    """A tiny WavLM on segments of 4 s, 2.5 s, 19 ms and 1 s."""
    from affect.audio.wavlm import WavlmRegressor, load_backbone
    from affect.console import tiny

    tiny.make_wavlm(folder)
    chosen = settings.Wavlm(weights=str(folder), trained_layers=1, hidden=32)
    lengths = torch.tensor([64_000, 40_000, 300, 16_000])[:batch]
    waves = 0.1 * torch.randn(len(lengths), 64_000, generator=generator)
    inputs = {"x": waves, "num_samples": lengths}
    return Case("wavlm", lambda: WavlmRegressor(chosen, load_backbone(str(folder), "main")), inputs)


def _tail(batch: int, length: int) -> Tensor:
    """Padding (B, T) of windows between ``length`` and .6 ``length`` points."""
    return torch.arange(length) >= torch.linspace(length, length * 0.6, batch).long()[:, None]


def parity(book: Book, case: Case, device: torch.device) -> None:
    """A model on a device against its copy on the CPU: predictions, embeddings and gradients."""
    torch.manual_seed(0)
    plain = case.build().eval()
    ours = copy.deepcopy(plain).to(device)
    expected, found = _forward_backward(plain, case, torch.device("cpu")), _forward_backward(ours, case, device)
    for name, most in (("prediction", 1e-4), ("embedding", 1e-4), ("gradient", 1e-3)):
        book.note(f"{case.name} float32: {name}", difference(found[name], expected[name]), most=most)
    inside = _inside(case.inputs)
    with torch.inference_mode():
        prediction = _prediction(plain(**case.inputs))[inside]
        whole = _prediction(ours(**moved(case.inputs, device))).cpu()[inside]
        with torch.autocast(device.type, torch.bfloat16):
            half = _prediction(ours(**moved(case.inputs, device))).float().cpu()[inside]
    book.note(f"{case.name} float32 without gradients", difference(whole, prediction), most=1e-4)
    # bfloat16 on a CPU depends on its instruction set
    book.note(f"{case.name} bfloat16", difference(half, prediction), most=5e-2 if device.type == "cuda" else None)


def _forward_backward(model: nn.Module, case: Case, device: torch.device) -> dict[str, Tensor]:
    """Prediction, embedding and gradient of a model in float32, of points that are no padding."""
    from affect.concordance import hybrid_loss

    inputs = moved(case.inputs, device)
    output = model(**inputs)
    prediction, annotated = _prediction(output), _inside(inputs).to(device)
    gold = torch.rand(prediction.shape, generator=torch.Generator().manual_seed(2)).to(device) * 2 - 1
    loss = hybrid_loss(gold, prediction, annotated, Loss(ccc_over="batch", error_weight=0.1))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = [g for g in torch.autograd.grad(loss, trained, allow_unused=True) if g is not None]
    gradient = torch.cat([g.detach().flatten().double().cpu() for g in gradients])
    return {"prediction": prediction[annotated], "embedding": output.embedding, "gradient": gradient}


def _inside(inputs: dict[str, Any]) -> Tensor:
    """Mask (B, T) of points that are no padding; a model without padding has blocks, or one point per crop."""
    if "padding" in inputs:
        return ~inputs["padding"]
    count = len(inputs["crops"] if "crops" in inputs else inputs["x"])
    return torch.ones(count, 1 if "crops" in inputs else 4, dtype=torch.bool)


def _prediction(output: Any) -> Tensor:  # noqa: ANN401 -- the output of any model
    """Valence and arousal (B, T, 2) of a model's output."""
    prediction: Tensor = output.affect[:, None] if hasattr(output, "affect") else output.prediction
    return prediction


def encoder(book: Book, device: torch.device, *, quick: bool) -> None:
    """The frame encoder as shipped, bfloat16 on a GPU, against float32 on the CPU."""
    from affect.face import grada

    shape = SMALL_GRADA if quick else GradaShape()
    crops = np.random.default_rng(0).integers(0, 256, (16, shape.crop_px, shape.crop_px, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        grada.save(grada.Grada(shape).eval(), folder)
        face = Face(crop_px=shape.crop_px, micro_batch=7)
        ours, plain = (grada.Encoder(Path(folder), face, kind)(crops) for kind in (device.type, "cpu"))
    for name, a, b in zip(("embedding", "expression", "affect"), ours, plain, strict=True):
        book.note(f"frame encoder as shipped: {name}", difference(a, b), most=5e-2)


def augmentation(book: Book, device: torch.device) -> None:
    """Augmented waveforms and crops with equal random numbers on both devices."""
    from affect.audio.augment import augment as augment_waves
    from affect.face.augment import augment as augment_crops

    waves, lengths = 0.1 * torch.randn(4, 16_000), torch.tensor([16_000, 9_000, 1, 0])
    every = settings.Augment(gain=1.0, noise=1.0, band_limit=1.0, reverb=1.0)
    plain, ours = (
        augment_waves(waves.to(kind), lengths.to(kind), every, torch.Generator().manual_seed(3))
        for kind in (torch.device("cpu"), device)
    )
    book.note("waveform augmentation", difference(ours, plain), most=1e-4)
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8))
    plain, ours = (
        augment_crops(crops.to(kind), CropAugment(), torch.Generator().manual_seed(4)).cpu().int()
        for kind in (torch.device("cpu"), device)
    )
    apart = float(((ours - plain).abs() > 1).float().mean())
    book.note("crop augmentation: share of values more than 1 apart", apart, most=1e-3)
