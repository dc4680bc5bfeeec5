"""Generated demo corpus: talking faces with known valence and arousal, in Aff-Wild2's layout.

Each frame is one photograph warped by smooth valence and arousal curves; light and synthetic voice follow the curves:

    valence   mouth corners and brows      warm or cool light      timbre
    arousal   eyes and head motion         brightness              pitch

People differ in geometry, colour, background and voice, so that models have to generalise to new people.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from affect.corpus.film import SAMPLE_RATE, TICKS, write_film
from affect.corpus.puppet import PAIR_WIDTH, WIDTH, Array, Puppet, head_motion
from affect.settings.recipes import GENERATOR_VERSION

Split = Literal["train", "development", "held_out"]
Size = Literal["demo", "micro"]
OnVideo = Callable[[int, int], None]

CURVE_RATE = 100  # samples per second of the valence, arousal and jaw curves
NOT_ANNOTATED = "-5,-5"
HEADER = "valence,arousal"
LABEL_FOLDERS: dict[Split, str] = {
    "train": "labels/Train_Set",
    "development": "labels/Validation_Set",
    "held_out": "held_out/labels",
}


@dataclass(frozen=True)
class Person:
    """One person in one video: a track. ``speaks`` says whether the person has the video's voice."""

    track: str
    seed: tuple[int, ...]
    speaks: bool


@dataclass(frozen=True)
class VideoSpec:
    """Everything that decides a video's files. ``fps`` is the mean of a variable rate."""

    name: str
    split: Split
    people: tuple[Person, ...]
    seed: tuple[int, ...]
    fps: int
    seconds: float
    has_audio: bool = True
    variable_rate: bool = False


@dataclass(frozen=True)
class Performance:
    """Curves of a person, CURVE_RATE samples per second: valence and arousal in [-1, 1], jaw opening in [0, 1]."""

    valence: Array
    arousal: Array
    jaw: Array

    def at(self, times: Array) -> Array:
        """Valence, arousal and jaw (N, 3) at `times` (N) in seconds."""
        grid = np.arange(len(self.valence)) / CURVE_RATE
        return np.stack([np.interp(times, grid, curve) for curve in (self.valence, self.arousal, self.jaw)], axis=1)


def video_specs(size: Size, seed: int = 0) -> list[VideoSpec]:
    """Specifies the videos of a corpus.

    Args:
        size: "demo" is 18 people (10 train, 3 development, 5 held out) in 17 videos of 14 to 16 s at 15 fps: one
            train video holds two people of whom one speaks, one has no audio, one has a variable frame rate.
            "micro" is one person per split, 5 s at 10 fps.
        seed: seed of all random choices.

    Returns:
        Specs in the order train, development, held out, for :func:`write_video`.
    """
    counts: dict[Split, int] = (
        {"train": 9, "development": 3, "held_out": 5}
        if size == "demo"
        else {"train": 1, "development": 1, "held_out": 1}
    )
    rng = np.random.default_rng(seed)
    specs: list[VideoSpec] = []
    for split, count in counts.items():
        for place in range(count):
            number = len(specs) + 1
            name, special = f"video{number:02d}", place if size == "demo" and split == "train" else None
            suffixes = ("_left", "_right") if special == 1 else ("",)
            people = tuple(Person(name + s, (seed, number, i), i == 0) for i, s in enumerate(suffixes))
            seconds = float(rng.uniform(14.0, 16.0)) if size == "demo" else 5.0
            fps = 15 if size == "demo" else 10
            specs.append(
                VideoSpec(name, split, people, (seed, number), fps, seconds, special != 2, variable_rate=special == 3)
            )
    return specs


def expression_of(valence: float, arousal: float) -> str:
    """Expression label of a valence and arousal in the demo, one of :data:`affect.settings.names.EXPRESSIONS`."""
    if valence > 0.3:
        return "happiness"
    if valence < -0.3:
        return "anger" if arousal > 0 else "sadness"
    return "surprise" if arousal > 0.3 else "neutral"


def _silent(done: int, total: int) -> None:
    """Reports no progress."""


def make_corpus(
    folder: Path, size: Size, *, seed: int = 0, mapper: Callable[..., Iterable[int]] = map, on_video: OnVideo = _silent
) -> None:
    """Writes the demo corpus, unless the folder holds it already.

    Args:
        folder: folder for `videos`, `labels`, `held_out` and, written last, `corpus.json`.
        size: see :func:`video_specs`.
        seed: the same seed gives the same bytes on the same machine.
        mapper: applies :func:`write_video` to the videos and keeps their order; may run in parallel.
        on_video: called with the numbers of written and of all videos after each video.

    Raises:
        ValueError: the folder holds a corpus of another size, seed or generator version.

    Source: layout of the ABAW challenges, see :mod:`affect.corpus.affwild2`; spec, section 1.
    """
    marker = folder / "corpus.json"
    content = json.dumps({"size": size, "seed": seed, "generator_version": GENERATOR_VERSION}) + "\n"
    if marker.exists():
        if marker.read_text() != content:
            raise ValueError(
                f"{folder} holds another demo corpus, {marker.read_text().strip()}: remove it or name another folder"
            )
        return
    specs = video_specs(size, seed)
    template = ["image_location,valence,arousal"]
    written = mapper(partial(write_video, folder=folder), specs)
    for done, (spec, rows) in enumerate(zip(specs, written, strict=True), start=1):
        if spec.split == "held_out":
            template += [f"{p.track}/{k:05d}.jpg,{NOT_ANNOTATED}" for p in spec.people for k in range(1, rows + 1)]
        on_video(done, len(specs))
    _write_lines(folder / "held_out" / "template.txt", template)
    _write_lines(marker, [content.rstrip()])


def write_video(spec: VideoSpec, folder: Path) -> int:
    """Writes one video and the label file of each of its tracks.

    Args:
        spec: the video.
        folder: folder of the corpus.

    Returns:
        Number of frames, which is the number of rows of each label file.
    """
    rng = np.random.default_rng((*spec.seed, 0))
    ticks = _frame_ticks(rng, spec)
    times = ticks / TICKS
    performances = [_perform(person, spec.seconds) for person in spec.people]
    states = [performance.at(times) for performance in performances]
    voice = _voice(np.random.default_rng((*spec.seed, 1)), performances[0], spec.seconds) if spec.has_audio else None
    path = folder / ("held_out/videos" if spec.split == "held_out" else "videos") / f"{spec.name}.mp4"
    write_film(path, _pictures(spec, states, times), ticks, None if voice is None else [voice], spec.fps)
    for person, state in zip(spec.people, states, strict=True):
        rows = [f"{v:.6f},{a:.6f}" for v, a in state[:, :2]]
        if spec.split != "held_out":
            start = int(rng.integers(5, len(rows) - 10))
            rows[start : start + 4] = [NOT_ANNOTATED] * 4
        _write_lines(folder / LABEL_FOLDERS[spec.split] / f"{person.track}.txt", [HEADER, *rows])
    return len(ticks)


def _write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text("\n".join(lines) + "\n")
    os.replace(temporary, path)


def _frame_ticks(rng: np.random.Generator, spec: VideoSpec) -> NDArray[np.int64]:
    """Presentation time of each frame in ticks; at a variable rate an interval is .5 to 2 times the mean."""
    count = round(spec.seconds * spec.fps)
    if not spec.variable_rate:
        return np.arange(count) * (TICKS // spec.fps)
    drift = ndimage.gaussian_filter1d(rng.normal(size=count), 6.0)
    intervals = np.exp2(np.clip(drift / drift.std() * 0.5 + rng.normal(0.0, 0.15, count), -1.0, 1.0))
    ends = np.cumsum(intervals) / intervals.sum() * spec.seconds * TICKS
    return np.concatenate([[0], np.round(ends[:-1])]).astype(np.int64)


def _affect_curve(rng: np.random.Generator, count: int) -> Array:
    """Smooth random curve (time scale 3 to 6 s), scaled to a random range within [-.85, .85]."""
    noise = ndimage.gaussian_filter1d(rng.normal(size=count), 0.9 * CURVE_RATE)
    unit = (noise - noise.min()) / np.ptp(noise)
    return rng.uniform(-0.85, -0.6) * (1 - unit) + rng.uniform(0.6, 0.85) * unit


def _speech_rhythm(rng: np.random.Generator, count: int) -> Array:
    """Syllable envelope in [0, 1]: phrases of 2.5 to 5 s, 3 to 5 syllables per second, pauses of .5 to 1.2 s at 0.

    One pause is longer, by about half of the video's length beyond 5 s, so that the mouth filter rejects some segments.
    """
    times, envelope, start = np.arange(count) / CURVE_RATE, np.zeros(count), rng.uniform(0.1, 0.5)
    long_pause = rng.uniform(0.45, 0.55) * max(times[-1] - 5.0, 0.0)
    long_pause_from = rng.uniform(0.0, times[-1] - long_pause)
    while start < times[-1]:
        end, rate = start + rng.uniform(2.5, 5.0), rng.uniform(3.0, 5.0)
        phase = np.clip((times - start) * rate, 0.0, np.floor((end - start) * rate))  # whole syllables
        loudness = rng.uniform(0.7, 1.0, 32)[np.minimum(phase.astype(int), 31)]
        envelope += loudness * np.sin(np.pi * phase) ** 2
        start = end + rng.uniform(0.5, 1.2)
        if end > long_pause_from:
            start, long_pause = start + long_pause, 0.0
    return envelope


def _perform(person: Person, seconds: float) -> Performance:
    rng = np.random.default_rng((*person.seed, 0))
    count = round(seconds * CURVE_RATE) + 1
    valence, arousal = _affect_curve(rng, count), _affect_curve(rng, count)
    return Performance(valence, arousal, _speech_rhythm(rng, count) if person.speaks else np.zeros(count))


def _voice(rng: np.random.Generator, performance: Performance, seconds: float) -> Array:
    """Harmonic voice in [-1, 1] at SAMPLE_RATE: pitch 160 Hz * 1.65^arousal, spectral tilt and formant from valence.

    The harmonics are scaled to unit power, so that loudness depends on the syllables only.
    """
    valence, jaw = performance.valence, performance.jaw
    pitch = 160.0 * 1.65**performance.arousal * rng.uniform(0.96, 1.04)
    tilt, formant = 1.5 - 1.1 * valence + rng.uniform(-0.1, 0.1), 1200.0 * 2.0**valence * rng.uniform(0.95, 1.05)
    harmonics = np.arange(1, 33)[:, None]
    amplitudes = harmonics**-tilt * (1 + 2 * np.exp(-(((harmonics * pitch - formant) / 400.0) ** 2)))
    amplitudes *= harmonics * pitch < 7000.0
    amplitudes *= 0.1 * (ndimage.maximum_filter1d(jaw, 25) > 0) * (0.4 + 0.6 * jaw) / np.linalg.norm(amplitudes, axis=0)
    times, grid = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE, np.arange(len(jaw)) / CURVE_RATE
    phase = 2 * np.pi * np.cumsum(np.interp(times, grid, pitch)) / SAMPLE_RATE
    previous, sine, twice_cosine = np.zeros_like(phase), np.sin(phase), 2 * np.cos(phase)
    voice = rng.normal(0.0, 3e-4, len(times))
    for amplitude in amplitudes:
        voice += np.interp(times, grid, amplitude) * sine
        previous, sine = sine, twice_cosine * sine - previous  # sin((k + 1) p) = 2 cos p sin kp - sin((k - 1) p)
    return voice


def _pictures(spec: VideoSpec, states: list[Array], times: Array) -> Iterator[NDArray[np.uint8]]:
    """Frames (HEIGHT, width, 3) with people side by side; the light follows the people's mean valence and arousal."""
    width = WIDTH if len(states) == 1 else PAIR_WIDTH
    rngs = [np.random.default_rng((*person.seed, 1)) for person in spec.people]
    puppets = [Puppet(rng, width) for rng in rngs]
    motions = [head_motion(rng, state[:, 1], times) for rng, state in zip(rngs, states, strict=True)]
    valence, arousal = np.mean(states, axis=0)[:, :2].T
    light = np.stack([1 + 0.2 * valence, np.ones_like(valence), 1 - 0.2 * valence], 1) * (1 + 0.3 * arousal[:, None])
    for k in range(len(times)):
        people = [
            puppet.draw(state[k], motion[k]) for puppet, state, motion in zip(puppets, states, motions, strict=True)
        ]
        picture = torch.cat(people, dim=2) * torch.from_numpy(light[k].astype(np.float32))[:, None, None]
        yield (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
