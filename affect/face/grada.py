"""GRADA, the frame encoder: EfficientNet-B1 to a 256-wide tanh embedding with expression and VA heads.

    e = tanh(BatchNorm(W Dropout(trunk(picture)) + b))         expression = W_e e + b_e,   (v, a) = W_va e + b_va

Source: paper, section 3.2 (the authors' weights are not public: any checkpoint of this shape can be loaded).
"""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from affect.device import at_hand
from affect.face.crop import normalise
from affect.layers import convolve_groups, fill
from affect.settings.encoder import GradaShape
from affect.settings.extraction import Face
from affect.settings.names import EXPRESSIONS
from affect.storage import files


class Encoded(NamedTuple):
    """What GRADA says of B crops: embedding (B, 256), expression logits (B, 8), valence and arousal (B, 2)."""

    embedding: Tensor
    expression: Tensor
    affect: Tensor


class DepthwiseConv2d(nn.Conv2d):
    """torch's own, in float32 on a CPU (see :func:`affect.layers.convolve_groups`)."""

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """Convolve each channel by itself."""
        return convolve_groups(super().forward, input, self.weight.dtype)


class Grada(nn.Module):
    """The encoder.

    Args:
        shape: its size.
    """

    def __init__(self, shape: GradaShape) -> None:
        """Build with random weights."""
        super().__init__()
        from torchvision.models.efficientnet import EfficientNet, MBConvConfig

        block = partial(MBConvConfig, width_mult=shape.width, depth_mult=shape.depth)
        # expansion, kernel, stride, input channels, output channels, layers: EfficientNet-B0's seven stages
        stages = [
            block(1, 3, 1, 32, 16, 1),
            block(6, 3, 2, 16, 24, 2),
            block(6, 5, 2, 24, 40, 2),
            block(6, 3, 2, 40, 80, 3),
            block(6, 5, 1, 80, 112, 3),
            block(6, 5, 2, 112, 192, 4),
            block(6, 3, 1, 192, 320, 1),
        ]
        self.shape = shape
        trunk = EfficientNet(stages, dropout=shape.dropout)
        for module in trunk.modules():
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                module.__class__ = DepthwiseConv2d  # the names of the state stay
        self.trunk = nn.Sequential(trunk.features, trunk.avgpool, nn.Flatten())
        self.embedding = nn.Sequential(
            nn.Dropout(shape.dropout),
            nn.Linear(trunk.classifier[1].in_features, shape.embedding),
            nn.BatchNorm1d(shape.embedding),
            nn.Tanh(),
        )
        self.expression = nn.Linear(shape.embedding, len(EXPRESSIONS))
        self.affect = nn.Linear(shape.embedding, 2)

    def forward(self, crops: Float[Tensor, "B 3 side side"]) -> Encoded:
        """Encode normalised crops."""
        embedding = self.embedding(self.trunk(crops))
        return Encoded(embedding, self.expression(embedding), self.affect(embedding))


def save(model: Grada, folder: str | Path) -> None:
    """Write ``model.safetensors`` and, last, ``config.json``."""
    tensors = {name: value.contiguous().cpu() for name, value in model.state_dict().items()}
    files.write(files.join(str(folder), "model.safetensors"), serialise(tensors))
    files.write(files.join(str(folder), "config.json"), json.dumps(asdict(model.shape), indent=2).encode())


def load(folder: Path) -> Grada:
    """Read a checkpoint, ready for inference.

    Raises:
        ValueError: the folder holds no checkpoint of this shape; names the first wrong tensor and both shapes.
    """
    try:
        model = Grada(GradaShape(**json.loads((folder / "config.json").read_text())))
        fill(model, load_file(folder / "model.safetensors"))
    except (OSError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} holds no GRADA checkpoint: {error}") from error
    return model.eval()


def load_trunk(model: Grada, path: Path) -> None:
    """Start the trunk from an EfficientNet, such as one trained on ImageNet.

    Args:
        model: whose trunk is filled.
        path: safetensors with torchvision's names, ``features.*``; its classifier is not read.

    Raises:
        ValueError: the file holds no such network; names the first wrong tensor and both shapes.
    """
    try:
        tensors = load_file(path)
        own = {name.removeprefix("features."): value for name, value in tensors.items() if name.startswith("features.")}
        fill(model.trunk[0], own)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{path} holds no EfficientNet of this size: {error}") from error


def fold(model: Grada) -> Grada:
    """Fold the trunk's batch normalisation into its convolutions, for inference: the same function, fewer steps."""
    from torchvision.ops.misc import Conv2dNormActivation

    for block in model.trunk.modules():
        if isinstance(block, Conv2dNormActivation):
            block[0], block[1] = fuse_conv_bn_eval(block[0], block[1]), nn.Identity()
    return model


class Encoder:
    """A loaded GRADA that turns uint8 crops into numbers, in micro-batches.

    In bfloat16 on a GPU, in float32 on a CPU. Channels lie last in memory and batch normalisation is folded into
    the convolutions; on a CPU both together halve the time.

    Args:
        folder: the checkpoint.
        settings: crop size and micro-batch.
        device: ``cuda`` or ``cpu``; the one at hand if not given.
    """

    def __init__(self, folder: Path, settings: Face, device: str | None = None) -> None:
        """Load the weights."""
        self._device = torch.device(device or at_hand())
        model = fold(load(folder))
        if model.shape.crop_px != settings.crop_px:
            raise ValueError(
                f"{folder} encodes crops of {model.shape.crop_px} px, the setting crop_px {settings.crop_px}"
            )
        self._model = model.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._settings = settings

    @torch.inference_mode()
    def __call__(self, crops: UInt8[ndarray, "n side side 3"]) -> tuple[ndarray, ndarray, ndarray]:
        """Encode n >= 1 crops: embedding (n, 256), expression logits (n, 8), valence and arousal (n, 2)."""
        parts = []
        for batch in torch.from_numpy(crops).split(self._settings.micro_batch):
            pixels = normalise(batch.to(self._device, non_blocking=True))
            with torch.autocast("cuda", torch.bfloat16, enabled=self._device.type == "cuda"):
                encoded = self._model(pixels)
            parts.append([value.float().cpu().numpy() for value in encoded])
        embedding, expression, affect = (np.concatenate(part) for part in zip(*parts, strict=True))
        return embedding, expression, affect
