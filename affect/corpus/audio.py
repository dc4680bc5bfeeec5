"""Sound of a time range of a video, mono, resampled, on the video's own time axis."""

from typing import Any, cast

import av
import av.error
import numpy as np
from jaxtyping import Int16
from numpy import ndarray

from affect.corpus.video import MediaError, Probe, open_media

# Codecs with overlapping blocks (AAC, MP3) need what precedes a seek point to decode it exactly.
_LEAD_IN_S = 1.0


def decode(uri: str, info: Probe, start_s: float, end_s: float, rate_hz: int = 16_000) -> Int16[ndarray, " samples"]:
    """Decode ``[start_s, end_s)``, seconds from the video's first frame; silence where the stream has nothing.

    Args:
        uri: the video.
        info: its probe.
        start_s: from the first frame's presentation time.
        end_s: end of the range.
        rate_hz: samples per second of the result.

    Returns:
        ``round((end_s - start_s) * rate_hz)`` samples, the channels averaged.

    Raises:
        MediaError: there is no audio stream, or it cannot be decoded.
    """
    if not info.has_audio:
        raise MediaError("it has no audio stream")
    wave = np.zeros(round((end_s - start_s) * rate_hz), dtype=np.int16)
    origin = round((start_s + info.start_s) * rate_hz)
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate_hz)
    with open_media(uri) as container:
        stream = container.streams.audio[0]
        begin = start_s + info.start_s - _LEAD_IN_S
        if start_s > _LEAD_IN_S:
            container.seek(int(begin / float(cast(Any, stream.time_base))), stream=stream, backward=True)
        decoded = 0
        for packet in container.demux(stream):
            try:
                frames = packet.decode() if packet.size else []
            except av.error.InvalidDataError:
                continue
            for frame in cast(Any, frames):
                decoded += 1
                for piece in resampler.resample(frame):
                    _place(wave, piece, origin)
                if frame.time is not None and frame.time > end_s + info.start_s:
                    return wave
        if not decoded and start_s == 0:
            raise MediaError("its audio cannot be decoded")
        for piece in resampler.resample(None):
            _place(wave, piece, origin)
    return wave


def _place(wave: Int16[ndarray, " samples"], piece: av.AudioFrame, origin: int) -> None:
    """Copy a resampled piece to where its timestamp says, what lies outside left out."""
    samples = piece.to_ndarray().reshape(-1)
    stamp = piece.pts * float(cast(Any, piece.time_base)) * piece.sample_rate if piece.pts is not None else origin
    start = round(stamp) - origin
    first, last = max(0, start), min(len(wave), start + len(samples))
    if first < last:
        wave[first:last] = samples[first - start : last - start]
