"""GRADA, the frame encoder: EfficientNet-B1 to a 256-wide tanh embedding with expression and VA heads.

    e = tanh(BatchNorm(W Dropout(trunk(picture)) + b))         expression = W_e e + b_e,   (v, a) = W_va e + b_va

Source: paper, section 3.2 (the authors' weights are not public: any checkpoint of this shape can be loaded).
"""

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from affect.config import Face
from affect.schema import EXPRESSIONS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Size of the encoder; the defaults are EfficientNet-B1's (width 1.0, depth 1.1) and the paper's embedding."""

    width: float = 1.0
    depth: float = 1.1
    embedding: int = 256
    dropout: float = 0.1


class Encoded(NamedTuple):
    """What GRADA says of B crops: embedding (B, 256), expression logits (B, 8), valence and arousal (B, 2)."""

    embedding: Tensor
    expression: Tensor
    affect: Tensor


class Grada(nn.Module):
    """The encoder.

    Args:
        shape: its size.
    """

    def __init__(self, shape: Shape) -> None:
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


def letterbox(picture: UInt8[ndarray, "H W 3"], box: Float[ndarray, " 4"], side: int) -> UInt8[ndarray, "side side 3"]:
    """Cut a box, scale its longest side to ``side`` px bilinearly, centre it on a black square.

    Args:
        picture: RGB.
        box: left, top, right, bottom as shares of width and height.
        side: side of the square in pixels.
    """
    height, width = picture.shape[:2]
    left, top = min(int(box[0] * width), width - 1), min(int(box[1] * height), height - 1)
    right, bottom = max(left + 1, round(box[2] * width)), max(top + 1, round(box[3] * height))
    crop = torch.from_numpy(picture[top:bottom, left:right].copy()).permute(2, 0, 1)[None]  # (1, 3, h, w)
    scale = side / max(crop.shape[2:])
    size = [max(1, round(length * scale)) for length in crop.shape[2:]]
    crop = functional.interpolate(crop, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    square = np.zeros((side, side, 3), dtype=np.uint8)
    y, x = (side - size[0]) // 2, (side - size[1]) // 2
    square[y : y + size[0], x : x + size[1]] = crop.numpy()
    return square


def normalise(crops: UInt8[Tensor, "B side side 3"]) -> Float[Tensor, "B 3 side side"]:
    """Scale to [0, 1], then ImageNet's mean and standard deviation; channels last in memory, which is faster."""
    mean, std = (
        crops.new_tensor(IMAGENET_MEAN, dtype=torch.float32),
        crops.new_tensor(IMAGENET_STD, dtype=torch.float32),
    )
    return ((crops / 255 - mean) / std).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def save(model: Grada, folder: Path) -> None:
    """Write ``model.safetensors`` and ``config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(model.shape), indent=2))


def load(folder: Path) -> Grada:
    """Read a checkpoint, ready for inference.

    Raises:
        ValueError: the folder holds no checkpoint of this shape.
    """
    try:
        model = Grada(Shape(**json.loads((folder / "config.json").read_text())))
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} holds no GRADA checkpoint: {error}") from error
    return model.eval()


class Encoder:
    """A loaded GRADA that turns uint8 crops into numbers, in micro-batches, on the device at hand.

    Args:
        folder: the checkpoint.
        settings: crop size and micro-batch.
    """

    def __init__(self, folder: Path, settings: Face) -> None:
        """Load the weights."""
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = load(folder).to(self._device)
        self._settings = settings

    @torch.inference_mode()
    def __call__(self, crops: UInt8[ndarray, "n side side 3"]) -> tuple[ndarray, ndarray, ndarray]:
        """Encode n >= 1 crops: embedding (n, 256), expression logits (n, 8), valence and arousal (n, 2)."""
        parts = []
        for batch in torch.from_numpy(crops).split(self._settings.micro_batch):
            encoded = self._model(normalise(batch.to(self._device)))
            parts.append([value.float().cpu().numpy() for value in encoded])
        embedding, expression, affect = (np.concatenate(part) for part in zip(*parts, strict=True))
        return embedding, expression, affect
