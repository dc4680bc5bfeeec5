"""The record."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32
from numpy import ndarray

from affect.corpus.probe import Probe
from affect.modality import Evidence, Extractor, Modality, Work
from affect.settings.recipes import Recipe, corpus_places
from affect.settings.run import Run
from affect.settings.spaces import under
from affect.storage.columns import array, list_column, matrix
from affect.storage.store import Store
from tests.pipeline.color.clip import ROWS
from tests.pipeline.color.settings import ColorModel, ColorRun, color


@dataclass(frozen=True)
class ColorPart:
    """Colour at each frame."""

    valid: Bool[ndarray, " frames"]
    color: Float32[ndarray, "frames 3"]


class Color(Modality):
    """Mean colour of the picture."""

    name = "color"
    rows = ROWS
    finite = ("color",)
    bytes_per_s = 24.0
    model = ColorModel
    space = demo_space = under("color_model", {"hidden": (8, 16)})
    evidence = "colour seen"
    no_evidence = "no picture"
    run = ColorRun
    recipes: ClassVar[Mapping[str, Recipe]] = {"color": (color, corpus_places)}

    def extractor(self, run: Run, device: str) -> Extractor:
        """Mean colours."""
        from tests.pipeline.color.clip import ColorClip

        return ColorClip(run.color)  # type: ignore[attr-defined]

    def work(self, run: Run, probe: Probe) -> Work:
        """Decoding alone."""
        return Work(0.0, 0.05, "decoding alone")

    def part(self, evidence: Evidence) -> ColorPart:
        """The nearest sample at each frame."""
        table, num = evidence.tables["color"], evidence.num_frames
        time_s, samples = evidence.clock.time_s, array(table["time_s"])
        nearest = np.abs(time_s[:, None] - samples).argmin(axis=1)
        frames = np.minimum(np.arange(num), len(time_s) - 1)
        return ColorPart(np.ones(num, dtype=bool), matrix(table["color"])[nearest[frames]])

    def tables(self, part: ColorPart) -> dict[str, pa.Table]:
        """One table."""
        return {"color": pa.table({"valid": part.valid, "color": list_column(part.color, pa.float32())})}

    def load(self, store: Store, keys: Mapping[str, str]) -> ColorPart:
        """Read the table."""
        table = store.get(keys["color"]).table
        return ColorPart(array(table["valid"]), matrix(table["color"]))

    def width(self, part: ColorPart) -> int:
        """Red, green, blue."""
        return part.color.shape[1]

    def task(self, settings: Any, widths: Mapping[str, int], segment_samples: int) -> Any:
        """Windows of frames."""
        from tests.pipeline.color.task import ColorTask

        return ColorTask(settings, widths["color"])

    def points_per_s(self, run: Run, fps: float) -> float:
        """Frames."""
        return fps
