"""Sound of a clip: one waveform per segment.

Source: spec section 5.1.
"""

import pyarrow as pa

from affect.corpus import audio
from affect.corpus.clip import Clip
from affect.settings.extraction import Audio
from affect.storage import schema
from affect.storage.extracted import Extracted, Part, Save, discard_part


class AudioClip:
    """Extracts one row per segment of a clip.

    Args:
        settings: sample rate.
    """

    def __init__(self, settings: Audio) -> None:
        """Stores the sample rate."""
        self._rate_hz = settings.sample_rate_hz

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
        table = pa.table(columns, schema=schema.AUDIO)
        return Extracted(table, "degraded", f"broken packets of its sound: {broken}") if broken else Extracted(table)
