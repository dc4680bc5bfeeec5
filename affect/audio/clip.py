"""Sound of a clip: one waveform per segment."""

import pyarrow as pa

from affect.corpus import audio
from affect.corpus.clip import Clip
from affect.settings.extraction import Audio
from affect.storage import schema
from affect.storage.extracted import Extracted, Part, Save, keep_none


class AudioClip:
    """Turns a clip into one row per segment.

    Args:
        settings: the sample rate.
    """

    def __init__(self, settings: Audio) -> None:
        """Nothing to load."""
        self._rate_hz = settings.sample_rate_hz

    def __call__(self, clip: Clip, begun: Part | None = None, save: Save = keep_none) -> Extracted:
        """Extract a clip, which takes no time worth keeping a part.

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
        wave, broken, heard = audio.decode(clip.uri, clip.probe, origin, end, self._rate_hz)
        if broken and not heard:
            return Extracted(empty, "failed", "its sound cannot be decoded")
        numbers, starts, ends = zip(*segments, strict=True)
        cut = [wave[round((a - origin) * self._rate_hz) : round((b - origin) * self._rate_hz)] for _, a, b in segments]
        columns = {"segment": numbers, "start_s": starts, "end_s": ends, "waveform": cut}
        table = pa.table(columns, schema=schema.AUDIO)
        return Extracted(table, "degraded", f"broken packets of its sound: {broken}") if broken else Extracted(table)
