"""Decodes the sound of a time range of a video: mono, resampled, on the time axis of the video's frames."""

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple, cast

import av
import av.error
import numpy as np
from av.container import InputContainer
from jaxtyping import Int16
from numpy import ndarray

from affect.corpus.probe import Probe
from affect.corpus.video import MediaError, open_media, packets

# Codecs with overlapping blocks (AAC, MP3) need the packets before a seek point to decode it exactly.
_LEAD_IN_S = 1.0
# Longer than the resampler's filter, so that a range has the same samples as within the whole sound.
_MARGIN_S = 0.1
# Matroska and FLV round timestamps to milliseconds: a smaller distance between two audio frames is no gap.
_JITTER_S = 0.01
MAX_RATE_HZ = 768_000
"""Highest accepted sampling rate; a higher one is a damaged header."""


class Sound(NamedTuple):
    """Sound of a time range.

    Args:
        wave: samples, mean of the channels; zeros where the stream has no sound.
        broken: number of packets of the range that cannot be decoded.
        decoded: whether any sample of the range was decoded.
    """

    wave: Int16[ndarray, " samples"]
    broken: int
    decoded: bool


def decode(uri: str, info: Probe, start_s: float, end_s: float, rate_hz: int = 16_000) -> Sound:
    """Decodes ``[start_s, end_s)``, seconds from the video's first frame.

    Args:
        uri: path or URI of the video.
        info: the video's probe.
        start_s: start of the range in seconds from the first frame's presentation time.
        end_s: end of the range, exclusive.
        rate_hz: samples per second of the result.

    Returns:
        ``round((end_s - start_s) * rate_hz)`` samples, and the number of undecodable packets.

    Raises:
        MediaError: there is no audio stream, or it cannot be decoded.

    Source: spec, section 5, item 1.
    """
    if not info.has_audio:
        raise MediaError("it has no audio stream")
    begin_s, finish_s = start_s + info.start_s, end_s + info.start_s
    with open_media(uri) as container:
        stream = container.streams.audio[0]
        rate_in = stream.codec_context.sample_rate if stream.codec_context else 0
        if not rate_in:
            raise MediaError("its audio cannot be decoded")
        if rate_in > MAX_RATE_HZ:
            raise MediaError(f"its audio has {rate_in:,} samples a second, more than {MAX_RATE_HZ:,}")
        if start_s > _LEAD_IN_S:
            with suppress(av.error.FFmpegError):  # not seekable: it is read from its start
                container.seek(int((begin_s - _LEAD_IN_S) / float(cast(Any, stream.time_base))), stream=stream)
        step = rate_in // math.gcd(rate_in, rate_hz)  # input samples after which both rates share a sample time
        origin = math.floor((begin_s - _MARGIN_S) * rate_in / step) * step
        source = np.zeros(math.ceil((finish_s + _MARGIN_S) * rate_in) - origin, dtype=np.int16)
        broken: list[float] = []
        runs = _runs(_mono(container, rate_in, broken), rate_in, finish_s + _MARGIN_S)
        if not runs and start_s == 0:
            raise MediaError("its audio cannot be decoded")
    decoded = False
    for at_s, samples in runs:
        at = round(at_s * rate_in) - origin
        first, last = max(0, at), min(len(source), at + len(samples))
        if first < last:
            source[first:last] = samples[first - at : last - at]
            decoded = True
    wave = np.zeros(round((end_s - start_s) * rate_hz), dtype=np.int16)
    skipped = round(begin_s * rate_hz) - origin * rate_hz // rate_in
    resampled = _resample(source, rate_in, rate_hz)[skipped : skipped + len(wave)]
    wave[: len(resampled)] = resampled
    return Sound(wave, sum(begin_s <= at_s < finish_s for at_s in broken), decoded)


def _runs(
    pieces: Iterator[tuple[float, Int16[ndarray, " _"]]], rate_hz: int, finish_s: float
) -> list[tuple[float, Int16[ndarray, " _"]]]:
    """Joins audio frames without a gap to runs; a run's start is the median of the starts that its timestamps imply."""
    runs: list[tuple[list[float], list[ndarray]]] = []
    length, expected_s = 0, -math.inf
    for stamp_s, samples in pieces:
        if abs(stamp_s - expected_s) > _JITTER_S:
            runs.append(([], []))
            length = 0
        starts, parts = runs[-1]
        starts.append(stamp_s - length / rate_hz)
        parts.append(samples)
        length += len(samples)
        expected_s = starts[0] + length / rate_hz
        if stamp_s > finish_s:
            break
    return [(float(np.median(starts)), np.concatenate(parts)) for starts, parts in runs]


def _mono(
    container: InputContainer, rate_hz: int, broken: list[float]
) -> Iterator[tuple[float, Int16[ndarray, " samples"]]]:
    """Time and mono samples of each audio frame; the times of undecodable packets are appended to ``broken``."""
    end_s, source_format, to_mono = 0.0, None, None
    for packet in packets(container, container.streams.audio[0]):
        try:
            for frame in cast(Any, packet.decode()):
                found = frame.format.name, frame.layout.name, frame.sample_rate
                if source_format != found:  # it may change within a stream
                    source_format = found
                    to_mono = av.AudioResampler(format="s16", layout="mono", rate=rate_hz)
                for piece in cast(Any, to_mono).resample(frame):
                    start_s = end_s if piece.pts is None else piece.pts * float(cast(Any, piece.time_base))
                    end_s = start_s + piece.samples / rate_hz
                    yield start_s, piece.to_ndarray().reshape(-1)
        except (av.error.FFmpegError, ValueError):
            if packet.pts is not None:
                broken.append(packet.pts * float(cast(Any, packet.time_base)))


def _resample(source: Int16[ndarray, " n"], rate_in: int, rate_out: int) -> Int16[ndarray, " m"]:
    frame = av.AudioFrame.from_ndarray(source[None], format="s16", layout="mono")
    frame.sample_rate = rate_in
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate_out)
    pieces = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([piece.to_ndarray().reshape(-1) for piece in pieces])
