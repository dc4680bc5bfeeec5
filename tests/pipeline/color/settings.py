"""Settings: a stage of extraction, a model, and a run that has both."""

from dataclasses import dataclass, field
from typing import ClassVar

from affect.settings.base import Count, Positive, Settings
from affect.settings.extraction import Stage
from affect.settings.run import Run
from affect.settings.training import Fit


@dataclass(frozen=True, kw_only=True, slots=True)
class Color(Stage):
    """Extraction of mean colours."""

    every_s: Positive = 0.5
    """Seconds between two samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ColorModel(Settings):
    """Two layers over the colour of a frame."""

    system: ClassVar[str] = "color"
    needs: ClassVar[tuple[str, ...]] = ("color",)

    hidden: Count = 16
    """Width of the embedding."""
    window_frames: Count = 50
    """Frames of a window."""
    fit: Fit = field(default_factory=lambda: Fit(learning_rate=1e-2, max_epochs=2))
    """How it is trained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ColorRun(Run):
    """A run with a fourth modality."""

    color: Color = field(default_factory=Color)
    """Extraction of colours."""
    color_model: ColorModel = field(default_factory=ColorModel)
    """Model of the colour."""


def color() -> ColorRun:
    """A recipe: colour alone."""
    return ColorRun(name="color", systems=("color",))
