"""Renders a video with boxes and names of its people, and its sound, as an MP4."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from affect.corpus import audio, video
from affect.corpus.film import SAMPLE_RATE, TICKS, write_film
from affect.corpus.probe import Probe
from affect.corpus.track import FULL_SCALE
from affect.corpus.video import MediaError
from affect.face.overlay import PersonOverlay, draw, overlay_size
from affect.face.tracks import Person

SOUND_PIECE_S = 60.0
"""Seconds of sound per read, which limits memory."""


class FilmPerson(NamedTuple):
    """A person to draw in a film.

    Args:
        name: name in tracks and predictions.
        person: the person's boxes by frame.
        mouth: state of the mouth by frame; None to draw no mouth.
    """

    name: str
    person: Person
    mouth: Mapping[int, Any] | None = None


def film(
    path: Path,
    uri: str,
    probe: Probe,
    people: Sequence[FilmPerson],
    *,
    largest: tuple[int, int],
    captions: bool,
    note: str = "",
    quality: int = 20,
) -> None:
    """Draws a video's people and encodes the film; memory does not grow with its length.

    Args:
        path: path of the MP4.
        uri: path or URI of the video.
        probe: probe of the video.
        people: people to draw, from left to right.
        largest: maximum width and height in pixels.
        captions: whether frame number and time are written into a corner.
        note: text stored in the file's metadata.
        quality: see :func:`affect.corpus.film.write_film`.

    Raises:
        MediaError: the video cannot be opened.
        OSError: the film cannot be written.
    """
    width, height = overlay_size(probe.width, probe.height, *largest)
    order = np.arange(len(probe.time_s))
    ticks = (
        np.maximum.accumulate(np.round(probe.time_s * TICKS).astype(np.int64) - order) + order
    )  # strictly increasing
    frames = video.decode(uri, probe, 0, len(probe.time_s), width=width, height=height)
    drawn = _drawn(frames, probe, people, (width, height), captions)
    write_film(path, drawn, ticks, _sound(uri, probe), max(1, round(probe.clock.fps)), note=note, quality=quality)


def _drawn(
    frames: Iterator[tuple[int, UInt8[ndarray, "H W 3"]]],
    probe: Probe,
    people: Sequence[FilmPerson],
    size: tuple[int, int],
    captions: bool,
) -> Iterator[UInt8[ndarray, "H W 3"]]:
    """Draws every frame; an undecodable frame repeats the previous one, or is black."""
    places = [dict(zip(p.person.frame.tolist(), range(len(p.person.frame)), strict=True)) for p in people]
    picture = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    decoded = next(frames, None)
    for frame, time_s in enumerate(probe.time_s):
        while decoded is not None and decoded[0] <= frame:
            picture, decoded = decoded[1], next(frames, None)
        shown = [
            PersonOverlay(number, name, person.box[at[frame]], bool(person.bridged[at[frame]]), _state(mouth, frame))
            for number, ((name, person, mouth), at) in enumerate(zip(people, places, strict=True))
            if frame in at
        ]
        yield draw(picture, shown, f"frame {frame}  {time_s:.2f} s" if captions else "")


def _state(mouth: Mapping[int, Any] | None, frame: int) -> Any:  # noqa: ANN401 -- one of three words, or None
    return None if mouth is None else mouth.get(frame, "not seen")


def _sound(uri: str, probe: Probe) -> Iterator[Float[ndarray, " samples"]] | None:
    """The video's sound in pieces; None if there is none or it cannot be decoded."""
    try:
        audio.decode(uri, probe, 0.0, min(1.0, probe.clock.duration_s), SAMPLE_RATE)
    except MediaError:
        return None
    return _pieces(uri, probe)


def _pieces(uri: str, probe: Probe) -> Iterator[Float[ndarray, " samples"]]:
    end_s = probe.clock.duration_s
    for start_s in np.arange(0.0, end_s, SOUND_PIECE_S).tolist():
        samples = audio.decode(uri, probe, start_s, min(start_s + SOUND_PIECE_S, end_s), SAMPLE_RATE).wave
        yield samples.astype(np.float64) / FULL_SCALE
