"""Encodes pictures and sound as an MP4."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import av.error
import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

TICKS = 600
"""Video time base in ticks per second: a frame at 10, 15, 24, 25 or 30 fps lasts a whole number of ticks."""
SAMPLE_RATE = 16_000
"""Sampling rate of the sound in Hz."""


def write_film(
    path: Path,
    pictures: Iterable[UInt8[ndarray, "H W 3"]],
    ticks: Int[ndarray, " frames"],
    voice: Iterable[Float[ndarray, " samples"]] | None,
    fps: int,
    *,
    note: str = "",
    quality: int = 20,
) -> None:
    """Encodes H.264 and AAC with one thread and bit-exact flags, so that equal content gives equal bytes.

    Args:
        path: path of the MP4, which is present only when it is complete.
        pictures: RGB pictures of one even size, one per entry of ``ticks``.
        ticks: presentation time of each picture, in 1/TICKS s.
        voice: pieces of the sound, in [-1, 1] at SAMPLE_RATE, or None for a film without sound.
        fps: nominal frames per second for the encoder.
        note: comment in the file's metadata, see :func:`read_note`.
        quality: H.264's constant rate factor: 20 is visually lossless, 28 gives a third of that size.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    pictures = iter(pictures)
    first = next(pictures)
    with av.open(temporary, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        video = container.add_stream(
            "libx264", rate=fps, options={"preset": "superfast", "crf": str(quality), "threads": "1"}
        )
        video.height, video.width, video.pix_fmt = *first.shape[:2], "yuv420p"
        video.codec_context.time_base = Fraction(1, TICKS)
        if note:
            container.metadata["comment"] = note
        audio = None if voice is None else container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", bit_rate=64_000)
        for tick, picture in zip(ticks, chain([first], pictures), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(format="yuv420p")  # converted by the encoder, the bytes differed between runs
            frame.pts, frame.time_base = int(tick), Fraction(1, TICKS)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None and voice is not None:
            start = 0
            for piece in voice:
                sound = av.AudioFrame.from_ndarray(piece[None].astype(np.float32), format="fltp", layout="mono")
                sound.sample_rate, sound.pts, sound.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
                container.mux(audio.encode(sound))
                start += len(piece)
            container.mux(audio.encode())
    temporary.replace(path)


def read_note(path: Path) -> str:
    """Note in a film's metadata; empty if the film has none or cannot be read."""
    try:
        with av.open(path) as container:
            return container.metadata.get("comment", "")
    except (OSError, av.error.FFmpegError):
        return ""
