"""Settings of the frame encoder (GRADA) and its training."""

from dataclasses import dataclass, field

from affect.settings.base import Count, Fraction, NonNegative, Positive, Settings, Share
from affect.settings.training import Fit, Loss, Workers


@dataclass(frozen=True, kw_only=True, slots=True)
class GradaShape(Settings):
    """Size of the frame encoder and its input; the defaults are the paper's: EfficientNet-B1, 256 dimensions."""

    width: Positive = 1.0
    """Channels, relative to EfficientNet-B0."""
    depth: Positive = 1.1
    """Layers, relative to EfficientNet-B0."""
    embedding: Count = 256
    """Dimensions of the embedding."""
    dropout: Fraction = 0.1
    """Dropout probability before the embedding layer."""
    crop_px: Count = 240
    """Side of the square input in pixels; the face is centred on black."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CropAugment(Settings):
    """Augmentation of face crops, in training only."""

    mirror: Share = 0.5
    """Probability of a horizontal flip."""
    turn_deg: float = 10.0
    """Maximum rotation to either side, in degrees."""
    scale: Fraction = 0.10
    """Maximum relative change of size."""
    shift: Fraction = 0.05
    """Maximum shift, as a share of half the side."""
    brightness: Fraction = 0.2
    """Maximum relative change of brightness."""
    contrast: Fraction = 0.2
    """Maximum relative change of contrast."""
    saturation: Fraction = 0.2
    """Maximum relative change of saturation."""
    grey: Share = 0.05
    """Probability of conversion to greyscale."""
    erase: Share = 0.25
    """Probability of random erasing: one rectangle set to black."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderRun(Settings):
    """Training of the frame encoder on images labelled with expression, valence and arousal, or both."""

    name: str
    """Name of the recipe."""
    shape: GradaShape = field(default_factory=GradaShape)
    """Size of the network and its input."""
    trunk: str = ""
    """Initial EfficientNet weights: a safetensors file with torchvision's tensor names; random if empty."""
    box_growth: Fraction = 0.10
    """Each face box of a manifest is enlarged by this share of its width and height on every side."""
    trunk_learning_rate: Positive = 1e-4
    """Learning rate of the trunk, constant; ``fit.learning_rate`` applies to the embedding layer and the heads."""
    affect_weight: NonNegative = 1.0
    """Weight of the valence-arousal loss."""
    expression_weight: NonNegative = 1.0
    """Weight of the expression cross-entropy."""
    dataset_weights: dict[str, float] = field(default_factory=dict)
    """Sampling rate per epoch by dataset: 0.5 draws half of its images, 2 draws each twice; 1 if not listed."""
    augment: CropAugment = field(default_factory=CropAugment)
    """Augmentation of face crops."""
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
    """Training settings."""
    workers: Workers = field(default_factory=Workers)
    """Training workers."""

    def check(self) -> None:
        """Checks constraints between fields."""
        for name, value in self.dataset_weights.items():
            self.require(value >= 0, f"dataset_weights of {name} is {value}, it cannot be negative")
