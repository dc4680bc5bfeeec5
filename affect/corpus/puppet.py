"""The demo's talking heads: one photograph, warped by valence, arousal and speech, in different shapes and colours."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage import color, data
from torch.nn import functional

Array = NDArray[np.floating]

HEIGHT, WIDTH, PAIR_WIDTH = 320, 320, 240  # pixels of one person's picture; two of PAIR_WIDTH are put side by side
PHOTO_SIZE = 512
# Points of the face in the photograph, (x, y) in pixels, measured once with MediaPipe's face landmarker.
FACE = (225.0, 118.0)
EYES = ((204.0, 101.5), (246.0, 103.5))
BROWS = ((216.3, 94.5), (234.4, 95.0))  # inner ends
MOUTH, MOUTH_HALF_WIDTH = (223.4, 144.0), 21.0
LOWER_LIP_Y, CHIN_Y, NECK = 149.2, 177.4, (223.0, 185.0)
MOUTH_INSIDE = (0.23, 0.09, 0.09)  # RGB
LIP_GAP = 5.0  # pixels between the lips in the photograph


@lru_cache(maxsize=1)
def _photograph() -> Array:
    """The photograph with the person cut out and the suit blurred: (512, 512, 4), RGB in [0, 1] and opacity."""
    photo = data.astronaut().astype(np.float64) / 255.0
    lightness, *chroma = np.moveaxis(color.rgb2lab(ndimage.gaussian_filter(photo, (1.0, 1.0, 0.0))), -1, 0)
    wall = (np.hypot(*chroma) < 11.0) & (lightness > 62.0)  # a plain grey backdrop
    regions, _ = ndimage.label(ndimage.binary_erosion(wall))
    wall = ndimage.binary_dilation(np.isin(regions, [regions[8, 130], regions[8, 330]]))
    person = ndimage.binary_erosion(ndimage.binary_fill_holes(~wall))
    opacity = ndimage.gaussian_filter(person.astype(np.float64), 1.2)
    opacity[:, :100] = opacity[:, 362:] = 0.0  # flag and model rocket
    y, x = np.mgrid[0:PHOTO_SIZE, 0:PHOTO_SIZE]
    suit = np.clip((np.hypot((x - 223.0) / 62.0, (y - 130.0) / 64.0) - 1.0) * 5.0, 0.0, 1.0)
    suit *= np.clip((y - 140.0) / 15.0, 0.0, 1.0)
    plain = 0.6 * ndimage.gaussian_filter(
        photo, (9.0, 9.0, 0.0)
    )  # blurred: face detectors find faces in the collar's folds
    photo += suit[..., None] * (plain - photo)
    return np.concatenate([photo, opacity[..., None]], axis=2).astype(np.float32)


def _sample(picture: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Bilinear samples (1, C, h, w) of `picture` (1, C, H, W) at `grid` (h, w, 2): x and y in [-1, 1], edge to edge."""
    return functional.grid_sample(picture, grid[None], align_corners=False, padding_mode="border")


def _photo_grid(x: Array, y: Array) -> torch.Tensor:
    """Sampling grid (h, w, 2) from pixel coordinates in the photograph."""
    return torch.from_numpy(np.stack([x, y], axis=-1).astype(np.float32)).add_(0.5).mul_(2 / PHOTO_SIZE).sub_(1)


def _bump(x: Array, y: Array, centre: tuple[float, float], sx: float, sy: float) -> Array:
    return np.exp(-0.5 * (((x - centre[0]) / sx) ** 2 + ((y - centre[1]) / sy) ** 2))


class Puppet:
    """Draws one person: the photograph with the person's own geometry and colours, in front of the person's background.

    A frame is drawn in two steps: the face box is resampled from the photograph for the expression, then the whole
    person for the head's motion. A displacement is a sum of coefficient * basis field; the fields are computed once.
    """

    def __init__(self, rng: np.random.Generator, width: int) -> None:
        """Draws the person's appearance at random.

        Args:
            rng: generator of geometry, colours and background.
            width: width of the picture in pixels.
        """
        self.ys, self.xs = np.mgrid[0:HEIGHT, 0:width].astype(np.float32)
        self._place(rng, width)
        self._dress(rng, width)
        x, y = self.x, self.y
        self._motion_bases(width)
        inside = (np.abs(x - FACE[0]) < 60) & (y > 74) & (y < 208)
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        self.box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        self._expression_bases(x[self.box], y[self.box])

    def _motion_bases(self, width: int) -> None:
        """Sets the sampling grid (HEIGHT, width, 2) at rest, and its change per pixel right and down and per radian."""
        head = 1 / (1 + np.exp((np.hypot((self.x - 226.0) / 84.0, (self.y - 100.0) / 92.0) - 1.12) * 14.0))
        none, unit = np.zeros_like(head), np.array([2 / width, 2 / HEIGHT], np.float32)
        roll = head * (0.85 * HEIGHT - self.ys), head * (self.xs - width / 2)  # about the neck
        moves = np.stack([(-head, none), (none, -head), (-roll[0], -roll[1])]).transpose(0, 2, 3, 1) * unit
        self.moves = torch.from_numpy(moves.astype(np.float32))
        rest = np.stack([self.xs + 0.5, self.ys + 0.5], axis=-1) * unit - 1
        self.rest = torch.from_numpy(rest.astype(np.float32))

    def _place(self, rng: np.random.Generator, width: int) -> None:
        """Sets the photograph coordinates of every output pixel: mirroring, affine map, jaw width, face height."""
        scale = rng.uniform(1.42, 1.58) * (0.92 if width == PAIR_WIDTH else 1.0)
        stretch, angle, shear = rng.uniform(-0.06, 0.06), rng.uniform(-0.05, 0.05), rng.uniform(-0.04, 0.04)
        u = (self.xs - width / 2 - rng.uniform(-10, 10)) / scale * (1 + stretch)
        v = (self.ys - HEIGHT * 0.5 - rng.uniform(-8, 8)) / scale * (1 - stretch)
        u, v = u + (shear - angle) * v, v + angle * u
        x, y = FACE[0] + u * rng.choice([-1.0, 1.0]), FACE[1] + v
        near = _bump(x, y, FACE, 55.0, 60.0)
        jaw, length = rng.uniform(-0.12, 0.12), rng.uniform(-0.06, 0.06)
        self.x = (x + near * jaw * (x - FACE[0]) * np.tanh((y - 122.0) / 30.0)).astype(np.float32)
        self.y = (y + near * length * (y - FACE[1])).astype(np.float32)

    def _dress(self, rng: np.random.Generator, width: int) -> None:
        """Sets the colours, and a background that makes the mean colour of every person nearly the same grey."""
        photo = _photograph().copy()
        tint = 1 + rng.uniform(-0.08, 0.08, 3)
        photo[..., :3] = 0.66 * tint * photo[..., :3] ** rng.uniform(0.85, 1.15)
        picture = torch.from_numpy(photo).permute(2, 0, 1)[None]
        self.photo = functional.interpolate(  # doubled, so that bilinear samples stay sharp
            picture, scale_factor=2, mode="bicubic", align_corners=False
        ).clamp(0, 1)
        self.still = _sample(self.photo, _photo_grid(self.x, self.y))
        opacity, rgb = self.still[0, 3].numpy(), self.still[0, :3].numpy()
        u, v = self.xs / width - 0.5, self.ys / HEIGHT - 0.5
        angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3) + rng.uniform(-0.1, 0.1, (3, 1, 1))
        noise = ndimage.gaussian_filter(rng.normal(size=(HEIGHT, width)), rng.uniform(4.0, 20.0, 2))
        texture = slope * (np.cos(angle) * u + np.sin(angle) * v) + rng.uniform(0.01, 0.05) * noise / noise.std()
        wanted = 0.38 * (1 + rng.uniform(-0.03, 0.03, 3)) - (rgb * opacity).mean((1, 2))
        wanted -= (texture * (1 - opacity)).mean((1, 2))
        wall = texture + (wanted / (1 - opacity).mean())[:, None, None]
        self.background = torch.from_numpy(np.clip(wall, 0.02, 0.9).astype(np.float32))

    def _expression_bases(self, x: Array, y: Array) -> None:
        """Sets the displacement fields (h, w) of the face box, in pixels of the photograph."""
        u = (x - MOUTH[0]) / MOUTH_HALF_WIDTH
        self.corners = u**2 * np.exp(1 - u**2) * np.exp(-0.5 * ((y - 141.0) / 14.0) ** 2)
        self.spread = np.sign(u) * self.corners
        self.brows = sum(_bump(x, y, centre, 8.0, 5.5) for centre in BROWS)
        self.frown = sum(side * _bump(x, y, centre, 8.0, 5.5) for side, centre in zip((1, -1), BROWS, strict=True))
        self.eyes = sum(_bump(x, y, eye, 10.0, 5.0) * (y - eye[1]) for eye in EYES)
        self.lips = np.cos(np.clip(np.abs(u), 0, 1) * np.pi / 2)
        self.chin = np.cos(np.clip(np.abs(u) / 1.9, 0, 1) * np.pi / 2) ** 2

    def _expression(self, valence: float, arousal: float, jaw: float) -> torch.Tensor:
        """The face box (1, 4, h, w) with the mouth corners, brows and eyes moved, then the jaw."""
        x, y = self.x[self.box], self.y[self.box]
        rise = 6.0 * valence - 2.5  # of the mouth corners; the face in the photograph smiles
        x = x - 2.5 * valence * self.spread - 1.5 * min(valence, 0.0) * self.frown
        y = y + rise * self.corners + 3.0 * valence * self.brows - 0.38 * arousal * self.eyes
        drop = -LIP_GAP + jaw * (LIP_GAP + 13.0) + 0.6 * (1 + arousal) * (jaw > 0)
        line = LOWER_LIP_Y - (1 - self.lips) * 3
        along = np.clip((y - line - 6) / (CHIN_Y - line - 6), 0, 1)
        fall = np.clip(1 - (y - CHIN_Y) / 28, 0, 1) ** 2
        down = drop * (self.lips * (1 - along) + self.chin * along) * fall
        lower = y - down >= line - 0.5  # the lower lip and everything below that moves with it
        opened = (y > MOUTH[1] + 3.7 + (1 - self.lips) * 0.5) & (y < line + down) & (self.lips > 0.05) & (down > 0.5)
        face = _sample(self.photo, _photo_grid(x, np.where(lower, y - down, y)))
        inside = torch.from_numpy(ndimage.gaussian_filter(opened.astype(np.float32), 1.2))
        face[:, :3] += inside * (torch.tensor(MOUTH_INSIDE)[:, None, None] - face[:, :3])
        return face

    def draw(self, state: Array, motion: Array) -> torch.Tensor:
        """Draws one frame, RGB (3, HEIGHT, width) in [0, 1].

        Args:
            state: valence, arousal, jaw.
            motion: head motion to the right and down in pixels, and roll in radians.
        """
        person = self.still.clone()
        person[(..., *self.box)] = self._expression(*map(float, state))
        grid = self.rest.clone()
        for move, amount in zip(self.moves, motion, strict=True):
            grid.add_(move, alpha=float(amount))
        person = _sample(person, grid)[0]
        return torch.lerp(self.background, person[:3], person[3])


def head_motion(rng: np.random.Generator, arousal: Array, times: Array) -> Array:
    """Motion of the head (N, 3): sway and nod in pixels, roll in radians; the amplitude grows with arousal."""
    rate, phase = rng.uniform(0.35, 0.8, 3), rng.uniform(0, 2 * np.pi, 3)
    swing = np.sin(2 * np.pi * rate * times[:, None] + phase)
    return swing * np.array([6.0, 7.0, 0.06]) * (0.25 + 0.4 * (1 + arousal[:, None]))
