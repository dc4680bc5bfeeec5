"""Generated videos of people whose places are known: a photograph cut out, tinted and set before a plain wall."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
import torch
from numpy import ndarray
from torch.nn import functional

from affect import weights
from affect.corpus import video
from affect.corpus.clip import Clip
from affect.corpus.puppet import FACE, PHOTO_SIZE, _photograph
from affect.face import grada
from affect.face.clip import FaceClip
from affect.face.tracks import Person
from affect.settings.encoder import GradaShape
from affect.settings.extraction import Face, Grid
from affect.storage.extracted import Extracted

FACE_HALF = np.array([42.0, 55.0])
"""Half of the photograph's face, across and down, in its pixels."""
RED, BLUE = (1.0, 0.62, 0.45), (0.5, 0.75, 1.0)
"""Tints of two people, RGB."""


def extractor(folder: Path, max_faces: int = 8) -> FaceClip:
    """The face extraction with a small random encoder; skips the test where MediaPipe's model cannot be had."""
    torch.manual_seed(0)
    grada.save(grada.Grada(GradaShape(width=0.1, depth=0.1, embedding=8, crop_px=32)).eval(), folder)
    try:
        return FaceClip(Face(weights=str(folder), crop_px=32, max_faces=max_faces))
    except weights.WeightsError as error:
        pytest.skip(str(error))


def extract(faces: FaceClip, path: Path) -> Extracted:
    """All faces of a video, as one clip."""
    info = video.probe(str(path), path.name)
    return faces(Clip(str(path), info, 0.0, info.clock.duration_s + 1.0, Grid()))


def lip_area(person: Person, extracted: Extracted, num_frames: int) -> ndarray:
    """A person's lip area at every frame, NaN where it was not measured."""
    values = extracted.table["lip_area"].cast("float64").to_numpy()
    area = np.full(num_frames, np.nan)
    area[person.frame[~person.bridged]] = values[person.rows]
    return area


def film(
    path: Path,
    pictures: Iterable[ndarray],
    fps: int,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """Encode RGB pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {"preset": "superfast", "crf": "20"})
        stream.pix_fmt = pix_fmt
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def wall(height: int, width: int, rgb: tuple[float, float, float]) -> ndarray:
    """A plain background in [0, 1], lighter towards the right."""
    return np.array(rgb) * np.linspace(0.9, 1.1, width)[None, :, None] * np.ones((height, 1, 1))


def add_person(
    picture: ndarray, face: tuple[float, float], scale: float, tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> ndarray:
    """Set a person into an RGB picture in [0, 1], in place.

    Args:
        picture: gets the person.
        face: where the middle of the face goes, in pixels.
        scale: pixels of the picture to a pixel of the photograph; the face is about 84 of these wide.
        tint: factors of skin and suit.

    Returns:
        The person's opacity (height, width).
    """
    photo = torch.from_numpy(_photograph()).permute(2, 0, 1)[None]  # (1, 4, 512, 512)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    place = np.stack([(x - face[0]) / scale + FACE[0], (y - face[1]) / scale + FACE[1]], axis=-1)
    grid = torch.from_numpy((place + 0.5) * 2 / PHOTO_SIZE - 1).float()[None]
    person = functional.grid_sample(photo, grid, align_corners=False)[0].permute(1, 2, 0).numpy()
    opacity = person[..., 3:]
    picture += opacity * (person[..., :3] * tint - picture)
    return opacity[..., 0]


def to_bytes(picture: ndarray) -> ndarray:
    """8-bit RGB."""
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


FPS, HEIGHT, WIDTH = 15, 270, 480
BACK, FRONT = 0, 1
"""The two people: the second one passes before the first one."""
TINTS, SCALES = (BLUE, RED), (0.85, 0.9)


class Crossing(NamedTuple):
    """A film of two people and where they truly are.

    Args:
        pictures: RGB.
        face: middle of each one's face as shares of width and height, NaN while not in the picture.
        visible: whether at least half of the face can be seen.
        scene: number of the scene; it rises at the cut.
    """

    pictures: list[ndarray]
    face: ndarray  # (frames, 2, 2)
    visible: ndarray  # (frames, 2)
    scene: ndarray  # (frames,)


@dataclass(frozen=True)
class _Scene:
    """A stretch of the film: x of both faces at its ends in pixels, NaN for somebody who is away."""

    seconds: float
    start: tuple[float, float]
    end: tuple[float, float]
    y: float = 105.0
    wall: int = 0


AWAY = float("nan")
_WALLS = (0.55, 0.60, 0.50), (0.20, 0.22, 0.35)
_SCENES = (
    _Scene(1.0, (115, 365), (115, 365)),
    _Scene(2.0, (115, 365), (365, 115)),  # they pass each other
    _Scene(1.0, (365, 115), (365, 115)),
    _Scene(1.0, (AWAY, 115), (AWAY, 115)),  # one is hidden for a second
    _Scene(1.0, (365, 115), (365, 115)),
    _Scene(1.5, (115, 365), (115, 365), wall=1),  # a cut: another place, sides changed
    _Scene(1.2, (AWAY, AWAY), (AWAY, AWAY), wall=1),
    _Scene(1.5, (AWAY, 200), (AWAY, 260), y=130, wall=1),  # one comes back alone, elsewhere
)


def crossing() -> Crossing:
    """Two people pass each other, one is hidden, a cut changes their sides, one comes back alone."""
    pictures, faces, visible, scenes = [], [], [], []
    for scene in _SCENES:
        for share in np.arange(round(scene.seconds * FPS)) / round(scene.seconds * FPS):
            sway = 3.0 * np.sin(0.3 * len(pictures) + np.array([0.0, 2.0]))
            x = np.array(scene.start) * (1 - share) + np.array(scene.end) * share
            centre = np.stack([x, scene.y + sway + 0.0 * x], axis=1)  # (2, 2)
            picture = wall(HEIGHT, WIDTH, _WALLS[scene.wall])
            cover = [_add(picture, centre[who], who) for who in (BACK, FRONT)]
            hidden = _covered(cover[FRONT], centre[BACK], SCALES[BACK])
            pictures.append(to_bytes(picture))
            faces.append(centre / [WIDTH, HEIGHT])
            visible.append(~np.isnan(x) & np.array([hidden <= 0.5, True]))
            scenes.append(scene.wall)
    return Crossing(pictures, np.array(faces), np.array(visible), np.array(scenes))


def _add(picture: ndarray, centre: ndarray, who: int) -> ndarray:
    if np.isnan(centre).any():
        return np.zeros(picture.shape[:2])
    return add_person(picture, (centre[0], centre[1]), SCALES[who], TINTS[who])


def _covered(opacity: ndarray, centre: ndarray, scale: float) -> float:
    """Share of a face that somebody's opacity covers; 0 for a face that is not there."""
    if np.isnan(centre).any():
        return 0.0
    (left, top), (right, bottom) = (np.round(centre + side * scale * FACE_HALF).astype(int) for side in (-1, 1))
    return float(opacity[max(top, 0) : bottom, max(left, 0) : right].mean())
