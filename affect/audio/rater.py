"""Speech-emotion model that rates segments itself: WavLM, attentive pooling, and a head for three dimensions.

    x = (wave - mean) / (std + 1e-6);   h = WavLM(x);   a = softmax over t of  u . tanh(W h_t + b)
    mu = sum_t a_t h_t;   sigma = sqrt(max(sum_t a_t h_t^2 - mu^2, 1e-5))
    p = W_2 ReLU(LN(W_1 [mu; sigma] + b_1)) + b_2                  p: arousal, dominance, valence, about 0 to 1

``mean`` and ``std`` are one pair for all waveforms, in the checkpoint's ``config.json``.

Source: ``3loi/SER-Odyssey-Baseline-WavLM-Multi-Attributes``, the baseline of the Odyssey 2024 challenge on MSP-Podcast.
Not tried with the published weights, which could not be fetched: the tests' checkpoints have its layout.
"""

import json
import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int16
from numpy import ndarray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import WavLMConfig, WavLMModel

from affect import weights
from affect.audio.wavlm import load_backbone, load_config, num_states, with_fast_layers
from affect.corpus.track import FULL_SCALE
from affect.device import default_device
from affect.layers import load_state
from affect.weights import WeightsError

BACKBONE = "ssl_model."
WAVLM_LARGE = "microsoft/wavlm-large"
ORDER = (2, 0, 1)
"""Positions of valence, arousal and dominance in the head's output."""


class Pooling(nn.Module):
    """Attentive mean and standard deviation of a segment's states."""

    def __init__(self, width: int) -> None:
        """Initialises the weights; ``width`` is that of a state."""
        super().__init__()
        self.sap_linear = nn.Linear(width, width)
        self.attention = nn.Parameter(torch.zeros(width, 1))

    def forward(self, h: Float[Tensor, "B S D"]) -> Float[Tensor, "B 2*D"]:
        """Pools segments without padding."""
        a = torch.softmax(torch.tanh(self.sap_linear(h)) @ self.attention, dim=1)  # (B, S, 1)
        mu = (a * h).sum(dim=1)
        sigma = ((a * h.square()).sum(dim=1) - mu.square()).clamp(min=1e-5).sqrt()
        return torch.cat([mu, sigma], dim=1)


class Head(nn.Module):
    """Regression head; the names of its parts are those of the checkpoint."""

    def __init__(self, width: int, hidden: int, layers: int, outputs: int) -> None:
        """Initialises the weights.

        Args:
            width: of a state.
            hidden: width of a hidden layer.
            layers: number of hidden layers.
            outputs: number of dimensions.
        """
        super().__init__()
        sizes = [2 * width] + [hidden] * layers
        self.fc = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()) for before, after in pairwise(sizes)
        )
        self.out = nn.Sequential(nn.Linear(hidden, outputs))

    def forward(self, x: Float[Tensor, "B features"]) -> Float[Tensor, "B outputs"]:
        """Arousal, dominance and valence."""
        for layer in self.fc:
            x = layer(x)
        return self.out(x)


class Parts(NamedTuple):
    """Everything of a checkpoint but its WavLM.

    Args:
        pooling: pooling of states.
        head: regression head.
        mean: mean of waveforms.
        std: standard deviation of waveforms.
    """

    pooling: Pooling
    head: Head
    mean: float
    std: float


LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "conv_bias": False,
}
"""Sizes of ``microsoft/wavlm-large`` that differ from transformers' default."""


def config_of(name: str, revision: str) -> WavLMConfig:
    """Configuration of a checkpoint's WavLM; that of WavLM-Large is not fetched.

    Raises:
        WeightsError: the checkpoint cannot be fetched, or names no WavLM.
    """
    folder = weights.checkpoint_config(name, revision, "ser")
    config = json.loads((folder / "config.json").read_text())
    return WavLMConfig(**LARGE) if config.get("ssl_type") == WAVLM_LARGE else load_config(name, revision)


def check(name: str, revision: str) -> None:
    """Fetches a checkpoint and checks all of it but WavLM's weights.

    Raises:
        WeightsError: it cannot be fetched, or is no speech-emotion model of this layout.
    """
    config_of(name, revision)
    _load_parts(name, weights.checkpoint(name, revision, "ser"))


def _load_parts(name: str, folder: Path) -> Parts:
    """Pooling, head and normalisation of a checkpoint."""
    try:
        config = json.loads((folder / "config.json").read_text())
        mean, std = float(config["mean"]), float(config["std"])
        if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
            raise ValueError(f"its config.json has mean {mean} and std {std}")
        files = sorted(folder.glob("*.safetensors"))
        tensors = {key: value for path in files for key, value in load_file(path).items()}
        own = {key: value.float() for key, value in tensors.items() if not key.startswith(BACKBONE)}
        pooling = Pooling(own["pool_model.attention"].shape[0])
        layers = len({key.split(".")[2] for key in own if key.startswith("ser_model.fc.")})
        outputs, hidden = own["ser_model.out.0.weight"].shape
        head = Head(pooling.attention.shape[0], hidden, layers, outputs)
        if outputs != len(ORDER):
            raise ValueError(f"its head has {outputs} outputs; arousal, dominance and valence are wanted")
        load_state(nn.ModuleDict({"pool_model": pooling, "ser_model": head}), own)
    except KeyError as error:
        raise WeightsError(f"{name}: it has no {error.args[0]}: it is no model that rates speech") from error
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise weights.load_error(name, error) from error
    return Parts(pooling.eval(), head.eval(), mean, std)


class Rater:
    """Rates waveforms in batches: bfloat16 autocast on a GPU, float32 on a CPU.

    Args:
        name: hub id or folder.
        revision: revision of the hub id.
        size: most waveforms of a batch; only waveforms of equal length share one, so that none is padded.
        device: ``cuda`` or ``cpu``; the available one if None.

    Raises:
        WeightsError: as :func:`check`, or its WavLM is incomplete.
    """

    def __init__(self, name: str, revision: str, size: int, device: str | None = None) -> None:
        """Loads the checkpoint."""
        self._device, self._size = torch.device(device or default_device()), size
        parts = _load_parts(name, weights.checkpoint(name, revision, "ser"))
        self._mean, self._std = parts.mean, parts.std
        self._backbone: WavLMModel = with_fast_layers(load_backbone(name, revision, config_of(name, revision))).to(
            self._device
        )
        self._top = nn.Sequential(parts.pooling, parts.head).to(self._device)

    @torch.inference_mode()
    def __call__(self, waveforms: Sequence[Int16[ndarray, " _"]]) -> Float[ndarray, "n 3"]:
        """Rates waveforms.

        Args:
            waveforms: mono, 16 kHz.

        Returns:
            Valence, arousal and dominance, ``2 p - 1`` clipped to [-1, 1]; NaN for a waveform too short for a state.
        """
        found = np.full((len(waveforms), len(ORDER)), np.nan, dtype=np.float32)
        lengths = torch.tensor([len(wave) for wave in waveforms], dtype=torch.long)
        known = np.flatnonzero(num_states(lengths, self._backbone.config).numpy() > 0).tolist()
        for _, same in groupby(sorted(known, key=lambda i: len(waveforms[i])), key=lambda i: len(waveforms[i])):
            indices = list(same)
            for start in range(0, len(indices), self._size):
                batch = indices[start : start + self._size]
                found[batch] = self._rate(np.stack([waveforms[i] for i in batch]))
        return found

    def _rate(self, waves: Int16[ndarray, "B samples"]) -> Float[ndarray, "B 3"]:
        x = torch.from_numpy(waves / np.float32(FULL_SCALE)).to(self._device)
        x = (x - self._mean) / (self._std + 1e-6)
        with torch.autocast("cuda", torch.bfloat16, enabled=self._device.type == "cuda"):
            h = self._backbone(x).last_hidden_state
        p = self._top(h.float())[:, list(ORDER)]  # float32: eight bits would be visible as steps
        return (2 * p - 1).clamp(-1, 1).cpu().numpy()
