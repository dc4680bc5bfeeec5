"""GRADA, the frame encoder: EfficientNet-B1, a 256-wide tanh embedding, and heads for expression, valence, arousal.

    e = tanh(BatchNorm(W Drop(trunk(crop)) + b));   expression = W_e e + b_e;   v, a = W_va e + b_va

Source: paper (arXiv 2603.13056), section 3.2; spec section 3.3. The authors' weights are not public: any checkpoint of
this shape can be loaded.
"""

import json
from collections.abc import Sequence
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

from affect.device import default_device
from affect.face.crop import Crop, normalise
from affect.face.encoding import Encoding, FrameEncoder
from affect.face.mesh import Mesh
from affect.layers import OutputLinear, grouped_convolution, load_state
from affect.settings.encoder import GradaShape
from affect.settings.extraction import Face
from affect.settings.names import EXPRESSIONS
from affect.storage import files


class Encoded(NamedTuple):
    """GRADA's outputs for B crops: embedding (B, 256), expression logits (B, 8), valence and arousal (B, 2)."""

    embedding: Tensor
    expression: Tensor
    affect: Tensor


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution; in float32 on a CPU, see :func:`affect.layers.grouped_convolution`."""

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """Convolves each channel by itself."""
        return grouped_convolution(super().forward, input, self.weight.dtype)


class Grada(nn.Module):
    """The encoder: EfficientNet trunk, embedding, and two linear heads.

    Args:
        shape: width and depth of the trunk, width of the embedding, dropout.
    """

    def __init__(self, shape: GradaShape) -> None:
        """Builds the encoder with random weights."""
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
                module.__class__ = DepthwiseConv2d  # keeps the names in the state dict
        self.trunk = nn.Sequential(trunk.features, trunk.avgpool, nn.Flatten())
        self.embedding = nn.Sequential(
            nn.Dropout(shape.dropout),
            nn.Linear(trunk.classifier[1].in_features, shape.embedding),
            nn.BatchNorm1d(shape.embedding),
            nn.Tanh(),
        )
        self.expression = OutputLinear(shape.embedding, len(EXPRESSIONS))
        self.affect = OutputLinear(shape.embedding, 2)

    def forward(self, crops: Float[Tensor, "B 3 side side"]) -> Encoded:
        """Encodes crops that :func:`affect.face.crop.normalise` made."""
        embedding = self.embedding(self.trunk(crops))
        return Encoded(embedding, self.expression(embedding), self.affect(embedding))


def save(model: Grada, folder: str | Path) -> None:
    """Writes ``model.safetensors``, then ``config.json``."""
    tensors = {name: value.contiguous().cpu() for name, value in model.state_dict().items()}
    files.write(files.join(str(folder), "model.safetensors"), serialise(tensors))
    files.write(files.join(str(folder), "config.json"), json.dumps(asdict(model.shape), indent=2).encode())


def load(folder: Path) -> Grada:
    """Reads a checkpoint that :func:`save` wrote; the model is in eval mode.

    Raises:
        ValueError: the folder holds no such checkpoint; names the first wrong tensor with both shapes.
    """
    try:
        model = Grada(GradaShape(**json.loads((folder / "config.json").read_text())))
        load_state(model, load_file(folder / "model.safetensors"))
    except (OSError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} holds no GRADA checkpoint: {error}") from error
    return model.eval()


def load_trunk(model: Grada, path: Path) -> None:
    """Loads pretrained weights, such as ImageNet's, into the trunk.

    Args:
        model: model whose trunk is overwritten.
        path: safetensors file with torchvision's names, ``features.*``; the classifier is not read.

    Raises:
        ValueError: the file holds no such network; names the first wrong tensor with both shapes.
    """
    try:
        tensors = load_file(path)
        prefix = "features."
        features = {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}
        load_state(model.trunk[0], features)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{path} holds no EfficientNet of this size: {error}") from error


def fold_batch_norm(model: Grada) -> Grada:
    """Folds the trunk's batch normalisation into its convolutions, for inference; outputs stay the same."""
    from torchvision.ops.misc import Conv2dNormActivation

    for block in model.trunk.modules():
        if isinstance(block, Conv2dNormActivation):
            block[0], block[1] = fuse_conv_bn_eval(block[0], block[1]), nn.Identity()
    return model


class Encoder(FrameEncoder):
    """Runs a GRADA checkpoint on uint8 crops in micro-batches: bfloat16 on a GPU, float32 on a CPU.

    Memory is channels last and batch normalisation is folded into the convolutions; on a CPU both together halve the
    time.

    Args:
        folder: folder of the checkpoint.
        settings: crop size and micro-batch.
        device: ``cuda`` or ``cpu``; the available one if None.

    Raises:
        ValueError: the folder holds no checkpoint, or one for crops of another size.
    """

    def __init__(self, folder: Path, settings: Face, device: str | None = None) -> None:
        """Loads the weights."""
        self.crop, self.known = Crop(settings.crop_px), range(len(EXPRESSIONS))
        self._device = torch.device(device or default_device())
        model = fold_batch_norm(load(folder))
        if model.shape.crop_px != settings.crop_px:
            raise ValueError(
                f"{folder} encodes crops of {model.shape.crop_px} px, the setting crop_px {settings.crop_px}"
            )
        self._model = model.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._size = settings.batch_size(self._device.type)

    @torch.inference_mode()
    def __call__(self, crops: UInt8[ndarray, "n side side 3"], meshes: Sequence[Mesh | None] = ()) -> Encoding:
        """Encodes n >= 1 crops; meshes are not used."""
        parts = []
        for batch in torch.from_numpy(crops).split(self._size):
            pixels = normalise(batch.to(self._device, non_blocking=True))
            with torch.autocast("cuda", torch.bfloat16, enabled=self._device.type == "cuda"):
                encoded = self._model(pixels)
            parts.append([value.float().cpu().numpy() for value in encoded])
        return Encoding(*(np.concatenate(part) for part in zip(*parts, strict=True)))
