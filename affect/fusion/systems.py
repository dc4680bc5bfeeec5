"""The records of the two fusions."""

from collections.abc import Mapping, Sequence
from typing import Any

from affect.modality import System
from affect.settings import models
from affect.settings.run import Run
from affect.settings.spaces import TRANSFORMER_SPACE, Range, under


class Dcmmoe(System):
    """The directed cross-modal mixture of experts."""

    name = "dcmmoe"
    model = models.Dcmmoe
    space = under("dcmmoe", TRANSFORMER_SPACE)
    demo_space = under(
        "dcmmoe",
        {
            "hidden": (16, 32),
            "layers": (1, 2),
            "heads": (2, 4),
            "dropout": (0.0, 0.1, 0.2),
            "fit.learning_rate": Range(3e-4, 5e-3),
        },
    )

    def task(self, settings: Any, widths: Mapping[str, int], segment_samples: int) -> Any:  # noqa: ANN401
        """Windows of frames."""
        from affect.fusion.task import DcmmoeTask

        return DcmmoeTask(settings, widths)

    def points_per_s(self, run: Run, fps: float) -> float:
        """Frames, repeated where windows overlap."""
        return fps * run.dcmmoe.window_frames / run.dcmmoe.window_hop_frames

    def title(self, settings: Mapping[str, Any], upstream: Sequence[str]) -> str:
        """Its name, and what it fuses if not the paper's three modalities."""
        usual = set(upstream) == set(models.Dcmmoe().modalities)
        return self.name if usual else f"{self.name} ({' + '.join(upstream)})"


SECONDS_SINCE = 2
"""Version of models since which RAAV's positions count seconds."""


class Raav(System):
    """The reliability-aware audio-visual fusion."""

    name = "raav"
    model = models.Raav
    space = under(  # what the paper names, and what is ours in it
        "raav",
        {
            "latents": (2, 4, 8),
            "layers": (1, 2),
            "positions": (False, True),
            "face_prior": (0.5, 0.7, 0.85),
            "smooth_valence_frames": (5, 9, 15),
            "smooth_arousal_frames": (5, 11, 17),
            "modality_dropout": (0.0, 0.3),
            "fit.learning_rate": Range(2e-5, 2e-4),
        },
    )
    demo_space = under(
        "raav",
        {
            "hidden": (32, 64),
            "latents": (2, 4, 8),
            "layers": (1, 2),
            "dropout": (0.0, 0.1, 0.2),
            "fit.learning_rate": Range(3e-4, 5e-3),
        },
    )

    def task(self, settings: Any, widths: Mapping[str, int], segment_samples: int) -> Any:  # noqa: ANN401
        """Segments of frames with their audio blocks."""
        from affect.fusion.task import RaavTask

        return RaavTask(settings, widths)

    def points_per_s(self, run: Run, fps: float) -> float:
        """Frames, repeated where segments overlap."""
        return fps * run.grid.segment_s / run.grid.hop_s

    def title(self, settings: Mapping[str, Any], upstream: Sequence[str]) -> str:
        """Its name, and what it fuses if not the paper's three modalities."""
        return self.name if set(upstream) == set(models.Raav().reads) else f"{self.name} ({' + '.join(upstream)})"

    def outdated(self, settings: Mapping[str, Any], version: int) -> str:
        """Positions once counted frames and blocks."""
        if settings["positions"] and version < SECONDS_SINCE:
            return "its positions count frames and blocks, now they count seconds"
        return ""
