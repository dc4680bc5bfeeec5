"""Files with the layout of public pretrained weights, with random numbers."""

import json
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import efficientnet_b0

from affect.console.tiny import make_wavlm

WIDTH, HIDDEN = 32, 48
"""Widths of the tiny WavLM's states and of the head's hidden layer."""
MEAN, STD = -0.0001, 0.08
"""Normalisation of waveforms, about as the published model has it."""


def face_network(seed: int = 0) -> nn.Module:
    """A random EfficientNet-B0 with ten outputs, whose outputs differ between pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = efficientnet_b0(
            norm_layer=lambda width: nn.BatchNorm2d(width, eps=1e-3, momentum=None),
            stochastic_depth_prob=0.0,
            dropout=0.0,
        )
        network.classifier = nn.Linear(1280, 10)
        pictures = torch.randn(16, 3, 1, 1) + torch.rand(16, 1, 1, 1) * torch.randn(16, 3, 64, 64)
        with torch.no_grad():  # statistics of random pictures: without them a random network is constant
            network.train()(pictures)
            answers = network.eval()(pictures)
            network.classifier.weight.mul_(0.4 / answers.std(dim=0)[:, None])
            network.classifier.bias.copy_(-0.4 * answers.mean(dim=0) / answers.std(dim=0))
    return network


def export(
    network: nn.Module,
    path: Path,
    *,
    side: int = 224,
    names: tuple[str, str] = ("input", "output"),
    batch: bool = True,
) -> Path:
    """Writes a network as ONNX, opset 11, as HSEmotion's publisher did."""
    axes = {name: {0: "batch"} for name in names} if batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, 3, side, side),),
            str(path),
            input_names=[names[0]],
            output_names=[names[1]],
            dynamic_axes=axes,
            opset_version=11,
            dynamo=False,
        )
    return path


def make_speech_emotion(folder: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    """Writes a tiny WavLM with the pooling and head of the speech-emotion model, under their names; returns these."""
    make_wavlm(folder / "wavlm", seed=seed)
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "pool_model.attention": (WIDTH, 1),
        "pool_model.sap_linear.weight": (WIDTH, WIDTH),
        "pool_model.sap_linear.bias": (WIDTH,),
        "ser_model.fc.0.0.weight": (HIDDEN, 2 * WIDTH),
        "ser_model.fc.0.0.bias": (HIDDEN,),
        "ser_model.fc.0.1.weight": (HIDDEN,),
        "ser_model.fc.0.1.bias": (HIDDEN,),
        "ser_model.out.0.weight": (3, HIDDEN),
        "ser_model.out.0.bias": (3,),
    }
    head = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    head["ser_model.out.0.weight"] *= 0.15  # answers of about 0 to 1
    head["ser_model.out.0.bias"] = torch.full((3,), 0.5)
    wrapped = {f"ssl_model.{name}": x for name, x in load_file(folder / "wavlm" / "model.safetensors").items()}
    save_file({**wrapped, **head}, folder / "model.safetensors", {"format": "pt"})
    config = {"model_type": "ser", "ssl_type": str(folder / "wavlm"), "mean": MEAN, "std": STD, "num_classes": 3}
    (folder / "config.json").write_text(json.dumps(config))
    return head
