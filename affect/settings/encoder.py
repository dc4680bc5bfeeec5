"""Settings of the frame encoder and of its training."""

from dataclasses import dataclass, field

from affect.settings.base import Count, Fraction, NonNegative, Positive, Settings, Share
from affect.settings.training import Fit, Loss, Workers


@dataclass(frozen=True, kw_only=True, slots=True)
class GradaShape(Settings):
    """Size of the frame encoder and of its input; the defaults are EfficientNet-B1's and the paper's."""

    width: Positive = 1.0
    """Factor on EfficientNet-B0's channels."""
    depth: Positive = 1.1
    """Factor on EfficientNet-B0's layers."""
    embedding: Count = 256
    """Width of the embedding."""
    dropout: Fraction = 0.1
    """Dropout before the embedding."""
    crop_px: Count = 240
    """Side of the black square that a face is centred on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CropAugment(Settings):
    """Augmentation of face crops, training only."""

    mirror: Share = 0.5
    """Probability of a mirror image."""
    turn_deg: float = 10.0
    """Largest turn to either side in degrees."""
    scale: Fraction = 0.10
    """Largest change of size, as a share."""
    shift: Fraction = 0.05
    """Largest shift, as a share of half a side."""
    brightness: Fraction = 0.2
    """Largest change of brightness, as a share."""
    contrast: Fraction = 0.2
    """Largest change of contrast, as a share."""
    saturation: Fraction = 0.2
    """Largest change of saturation, as a share."""
    grey: Share = 0.05
    """Probability of a crop without colour."""
    erase: Share = 0.25
    """Probability of a blacked-out rectangle."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderRun(Settings):
    """Training of the frame encoder on labelled pictures: expressions, valence and arousal, or both."""

    name: str
    """The recipe's name."""
    shape: GradaShape = field(default_factory=GradaShape)
    """Its size."""
    trunk: str = ""
    """EfficientNet that the trunk starts from: safetensors with torchvision's names; random if not given."""
    box_growth: Fraction = 0.10
    """A manifest's box grows by this share of its width and height on each side."""
    trunk_learning_rate: Positive = 1e-4
    """Learning rate of the trunk, which no scheduler lowers; ``fit.learning_rate`` is that of embedding and heads."""
    affect_weight: NonNegative = 1.0
    """Weight of the valence and arousal loss."""
    expression_weight: NonNegative = 1.0
    """Weight of the expressions' cross-entropy."""
    dataset_weights: dict[str, float] = field(default_factory=dict)
    """How often a dataset's pictures are seen in an epoch: 0.5 half of them, 2 each twice; 1 if not given."""
    augment: CropAugment = field(default_factory=CropAugment)
    """Augmentation."""
    fit: Fit = field(
        default_factory=lambda: Fit(
            learning_rate=1e-3,
            batch_size=64,
            max_epochs=30,
            stop_patience=5,
            clip_norm=1.0,
            loss=Loss(ccc_over="batch", error_weight=1.0, min_points=4),
        )
    )
    """How it is trained."""
    workers: Workers = field(default_factory=Workers)
    """Where training runs."""

    def check(self) -> None:
        """Check what fields ask of each other."""
        for name, value in self.dataset_weights.items():
            self.require(value >= 0, f"dataset_weights of {name} is {value}, it cannot be negative")
