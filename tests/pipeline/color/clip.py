"""Rows of a clip: one every half second."""

import numpy as np
import pyarrow as pa

from affect.corpus import video
from affect.corpus.clip import Clip
from affect.storage.extracted import Extracted, Part, Save, discard_part
from tests.pipeline.color.settings import Color

ROWS = pa.schema([("time_s", pa.float64()), ("color", pa.list_(pa.float32()))])
"""Time of a sample, and its mean red, green and blue in [0, 1]."""


class ColorClip:
    """Turns a clip into rows."""

    def __init__(self, settings: Color) -> None:
        self._settings = settings

    def __call__(self, clip: Clip, partial: Part | None = None, save: Save = discard_part) -> Extracted:
        """Extract a clip."""
        rows = []
        for frame, picture in video.decode(clip.uri, clip.probe, *clip.frames):
            time_s = float(clip.probe.time_s[frame])
            if not rows or time_s - rows[-1]["time_s"] >= self._settings.every_s - 1e-3:
                rows.append({"time_s": time_s, "color": np.mean(picture / 255, axis=(0, 1)).astype(np.float32)})
        return Extracted(pa.Table.from_pylist(rows, schema=ROWS))
