"""Sound of a clip: one waveform per segment, and its rating by a speech-emotion model if there is one.

Source: spec section 5.1.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from affect.corpus import audio
from affect.corpus.clip import Clip
from affect.settings.extraction import Audio
from affect.storage import schema
from affect.storage.columns import list_column
from affect.storage.extracted import Extracted, Part, Save, discard_part


class AudioClip:
    """Extracts one row per segment of a clip.

    Args:
        settings: sample rate, rater.
        device: device of the rater, ``cuda`` or ``cpu``; the available one if None.
    """

    def __init__(self, settings: Audio, device: str | None = None) -> None:
        """Loads the rater, if there is one."""
        self._rate_hz = settings.sample_rate_hz
        self._rater = None
        if settings.rater:
            from affect.audio.rater import Rater

            self._rater = Rater(settings.rater, settings.rater_revision, settings.micro_batch, device)

    def __call__(self, clip: Clip, partial: Part | None = None, save: Save = discard_part) -> Extracted:
        """Extracts a clip. It is too fast for partial results: ``partial`` and ``save`` are not used.

        Raises:
            MediaError: the video cannot be opened.
        """
        segments = clip.segments
        empty = schema.AUDIO.empty_table()
        if not segments:
            return Extracted(empty)
        if not clip.probe.has_audio:
            return Extracted(empty, "degraded", "no audio stream")
        origin, end = segments[0][1], max(end for _, _, end in segments)
        wave, broken, decoded = audio.decode(clip.uri, clip.probe, origin, end, self._rate_hz)
        if broken and not decoded:
            return Extracted(empty, "failed", "its sound cannot be decoded")
        numbers, starts, ends = zip(*segments, strict=True)
        cut = [wave[round((a - origin) * self._rate_hz) : round((b - origin) * self._rate_hz)] for _, a, b in segments]
        columns = {"segment": numbers, "start_s": starts, "end_s": ends, "waveform": cut}
        table = self._rated(pa.table(columns, schema=schema.AUDIO), cut)
        return Extracted(table, "degraded", f"broken packets of its sound: {broken}") if broken else Extracted(table)

    def _rated(self, table: pa.Table, waveforms: list[Any]) -> pa.Table:
        """A table with the rater's column."""
        if self._rater is None:
            return table
        ratings = self._rater(waveforms)
        return table.append_column(schema.RATING, list_column(ratings, pa.float32(), np.isfinite(ratings).all(axis=1)))
