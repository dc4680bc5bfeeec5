"""Draws boxes, names and mouth states of people onto a frame."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

COLORS = ("#2b7de9", "#d95f02", "#17926c", "#c2429b", "#8a7a00", "#6b7480")
"""One colour per person, from left to right, repeated after the last; distinguishable on screen and in print."""


class PersonOverlay(NamedTuple):
    """One person at one frame.

    Args:
        number: 0-based number from the left; selects the colour.
        name: name of the person in tracks and predictions.
        box: left, top, right, bottom as shares of the picture.
        bridged: true if the box is interpolated; it is then drawn dashed.
        mouth: mouth state by the audio filter; None to draw the name alone.
    """

    number: int
    name: str
    box: Float[ndarray, " 4"]
    bridged: bool
    mouth: Literal["open", "closed", "not seen"] | None


def overlay_size(width: int, height: int, max_width: int, max_height: int) -> tuple[int, int]:
    """Width and height of the drawn picture: within limits, aspect kept, both even, as video encoders require."""
    scale = min(1.0, max_width / width, max_height / height)
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def draw(picture: UInt8[ndarray, "H W 3"], people: Sequence[PersonOverlay], caption: str) -> UInt8[ndarray, "h w 3"]:
    """Draws people onto a copy of a picture.

    Args:
        picture: RGB, of the size that :func:`overlay_size` gives.
        people: people to draw.
        caption: text in the upper left corner, such as frame number and time; empty for none.

    Returns:
        The picture with a box, a name, the centre of the box (in a hint file's units) and the mouth state per person.
    """
    image = Image.fromarray(picture)
    canvas = ImageDraw.Draw(image)
    height, width = picture.shape[:2]
    font = _font(max(10, round(width / 50)))
    for person in people:
        left, top, right, bottom = person.box * [width, height, width, height]
        color = COLORS[person.number % len(COLORS)]
        _rectangle(canvas, (left, top, right, bottom), color, dashed=person.bridged, line=max(2, round(width / 320)))
        x, y = (person.box[:2] + person.box[2:]) / 2
        if person.mouth is None:
            _label(canvas, font, (left, top), person.name, color, above=True)
        else:
            _label(canvas, font, (left, top), f"{person.name}  ({x:.2f}, {y:.2f})", color, above=True)
            _label(canvas, font, (left, bottom), f"mouth {person.mouth}", color, above=False)
    if caption:
        _label(canvas, font, (0.0, 0.0), caption, "#ffffff", above=False)
    return np.asarray(image)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _rectangle(
    canvas: ImageDraw.ImageDraw, box: tuple[float, float, float, float], color: str, *, dashed: bool, line: int
) -> None:
    left, top, right, bottom = box
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    for start, end in pairwise(corners):
        a, b = np.array(start), np.array(end)
        dashes = np.linspace(0, 1, 16).reshape(-1, 2) if dashed else np.array([[0.0, 1.0]])
        for begin, finish in dashes:
            canvas.line([tuple(a + begin * (b - a)), tuple(a + finish * (b - a))], fill=color, width=line)


def _label(
    canvas: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    at: tuple[float, float],
    text: str,
    color: str,
    *,
    above: bool,
) -> None:
    """Draws text on a black rectangle, moved so that it stays inside the picture."""
    _, _, right, bottom = canvas.textbbox((0, 0), text, font=font)
    width, height = right + 6, bottom + 4
    x = min(max(0.0, at[0]), max(0.0, canvas.im.size[0] - width))
    y = min(max(0.0, at[1] - height if above else at[1]), max(0.0, canvas.im.size[1] - height))
    canvas.rectangle([x, y, x + width, y + height], fill="#000000")
    canvas.text((x + 3, y + 1), text, fill=color, font=font)
