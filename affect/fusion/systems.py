"""The records of the two fusions, and of the linear map of encoders' own ratings."""

from collections.abc import Mapping, Sequence
from typing import Any

from affect.modality import System
from affect.settings import models
from affect.settings.run import Run
from affect.settings.spaces import TRANSFORMER_SPACE, Range, under


def _title(name: str, upstream: Sequence[str], usual: Sequence[str]) -> str:
    """Name of a fusion, with the fused modalities if they are not the usual ones."""
    return name if set(upstream) == set(usual) else f"{name} ({' + '.join(upstream)})"


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
        """Task on windows of frames."""
        from affect.fusion.task import DcmmoeTask

        return DcmmoeTask(settings, widths)

    def points_per_s(self, run: Run, fps: float) -> float:
        """Frames per second, times the overlap of windows."""
        return fps * run.dcmmoe.window_frames / run.dcmmoe.window_hop_frames

    def title(self, settings: Mapping[str, Any], upstream: Sequence[str]) -> str:
        """Its name, with the fused modalities if they are not the default ones."""
        return _title(self.name, upstream, models.Dcmmoe().reads)


SECONDS_SINCE = 2
"""First version of models in which RAAV's positions are in seconds."""


class Raav(System):
    """The reliability-aware audio-visual fusion."""

    name = "raav"
    model = models.Raav
    space = under(  # settings that the paper names, and our additions
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
        """Task on segments of frames with their audio blocks."""
        from affect.fusion.task import RaavTask

        return RaavTask(settings, widths)

    def points_per_s(self, run: Run, fps: float) -> float:
        """Frames per second, times the overlap of segments."""
        return fps * run.grid.segment_s / run.grid.hop_s

    def title(self, settings: Mapping[str, Any], upstream: Sequence[str]) -> str:
        """Its name, with the fused modalities if they are not the default ones."""
        return _title(self.name, upstream, models.Raav().reads)

    def outdated(self, settings: Mapping[str, Any], version: int) -> str:
        """Models before :data:`SECONDS_SINCE` with positions, which were in frames and blocks."""
        if settings["positions"] and version < SECONDS_SINCE:
            return "its positions count frames and blocks, now they count seconds"
        return ""


class Linear(System):
    """The linear map of the ratings that pretrained encoders give themselves."""

    name = "linear"
    model = models.Linear
    space = under("linear", {})  # it selects its own settings by folds
    demo_space = space
    solved = True

    def task(self, settings: Any, widths: Mapping[str, int], segment_samples: int) -> Any:  # noqa: ANN401
        """Task on whole tracks."""
        from affect.fusion.linear_task import LinearTask

        return LinearTask(settings, widths)

    def points_per_s(self, run: Run, fps: float) -> float:
        """Frames per second."""
        return fps

    def modalities(self, settings: Mapping[str, Any], upstream: Sequence[str]) -> tuple[str, ...]:
        """Modalities whose ratings it reads."""
        return tuple(settings["modalities"])

    def title(self, settings: Mapping[str, Any], upstream: Sequence[str]) -> str:
        """Its name, with the modalities if they are not the default ones."""
        read = tuple(settings["modalities"])
        return self.name if read == models.Linear().modalities else f"{self.name} ({' + '.join(read)})"
