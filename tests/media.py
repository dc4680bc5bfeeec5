"""Small generated videos: every frame shows its number as bars, the sound is a tone of known phase."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy import ndarray

BITS = 8
RED = (250, 20, 20)


def picture(number: int, width: int, height: int) -> ndarray:
    """A dark picture with a red upper left corner and the bits of a number as light bars in the lower half."""
    rgb = np.full((height, width, 3), 40, dtype=np.uint8)
    rgb[: height // 4, : width // 4] = RED
    for bit in range(BITS):
        rgb[height // 2 :, bit * width // BITS : (bit + 1) * width // BITS] = 230 if number >> bit & 1 else 20
    return rgb


def number_of(rgb: ndarray) -> int:
    """Reads the number that a picture shows."""
    height, width = rgb.shape[:2]
    row = rgb[3 * height // 4].mean(axis=1)
    return sum(int(row[int((bit + 0.5) * width / BITS)] > 125) << bit for bit in range(BITS))


def tone(rate: int, seconds: float, amplitude: float = 8000.0, pitch: float = 441.0) -> ndarray:
    """A sine that starts at phase 0."""
    return amplitude * np.sin(2 * np.pi * pitch * np.arange(round(rate * seconds)) / rate)


@dataclass(frozen=True, kw_only=True)
class Sound:
    """Samples (channels, n) in 16-bit units, with their rate in Hz, codec and start in seconds."""

    samples: ndarray
    rate: int
    codec: str = "pcm_s16le"
    start_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Film:
    """Format of a video; `ticks` are the times of its frames in milliseconds."""

    name: str
    ticks: Sequence[int]
    codec: str = "libx264"
    size: tuple[int, int] = (64, 48)
    pix_fmt: str = "yuv420p"
    pixel_aspect: Fraction = Fraction(1)
    options: dict[str, str] = field(default_factory=lambda: {"bf": "0", "g": "12"})
    container: dict[str, str] = field(default_factory=dict)
    time_base: Fraction = Fraction(1, 1000)
    sound: Sound | None = None


def write(folder: Path, film: Film) -> Path:
    """Encodes a film into a folder; its path."""
    path = folder / film.name
    with av.open(str(path), "w", container_options=film.container) as container:
        video = container.add_stream(film.codec, rate=25, options=film.options)
        video.width, video.height, video.pix_fmt = *film.size, film.pix_fmt
        video.codec_context.sample_aspect_ratio = film.pixel_aspect
        video.codec_context.time_base = film.time_base
        video.codec_context.gop_size = 12
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(film.sound.samples) if film.sound else 1]
        audio = container.add_stream(film.sound.codec, rate=film.sound.rate, layout=layout) if film.sound else None
        for number, tick in enumerate(film.ticks):
            rgb = av.VideoFrame.from_ndarray(picture(number, *film.size), format="rgb24")
            frame = rgb.reformat(format=film.pix_fmt)
            frame.pts, frame.time_base = round(tick / 1000 / film.time_base), film.time_base
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if film.sound and audio is not None:
            for frame in sound_frames(film.sound, layout, audio.codec_context.format.name):
                container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


def sound_frames(sound: Sound, layout: str, kind: str) -> list[av.AudioFrame]:
    """Frames of 1024 samples, in the sample format of the encoder."""
    frames = []
    for start in range(0, sound.samples.shape[1], 1024):
        part = sound.samples[:, start : start + 1024]
        if kind == "fltp":
            data = np.ascontiguousarray(part / 32768, dtype=np.float32)
        else:
            data = np.ascontiguousarray(np.round(part).astype(np.int16).T.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(data, format="fltp" if kind == "fltp" else "s16", layout=layout)
        frame.sample_rate, frame.time_base = sound.rate, Fraction(1, sound.rate)
        frame.pts = start + round(sound.start_s * sound.rate)
        frames.append(frame)
    return frames


def turned(content: bytes, quarter_turns: int) -> bytes:
    """Sets the display matrix of an MP4 so that players turn the picture clockwise."""
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarter_turns]
    matrix = struct.pack(">9i", cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    at = content.index(b"tkhd") + 44
    return content[:at] + matrix + content[at + 36 :]


def noise(path: Path, codec: str, options: dict[str, str], num_frames: int) -> Path:
    """Writes a video of noise, which does not compress, with interleaved sound."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (240, 320, 3), dtype=np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
            samples = rng.normal(0, 0.1, (1, 640)).astype(np.float32)
            part = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            part.sample_rate, part.pts, part.time_base = 16_000, number * 640, Fraction(1, 16_000)
            container.mux(sound.encode(part))
        container.mux(stream.encode())
        container.mux(sound.encode())
    return path
