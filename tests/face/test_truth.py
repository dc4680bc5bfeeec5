"""Videos whose truth is known: how far a mouth is open, and who stands where."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy import ndarray
from scipy import ndimage
from skimage import data
from torch.nn import functional

from affect.corpus import demo
from affect.corpus.demo import VideoSpec, video_specs
from affect.corpus.film import TICKS, write_film
from affect.face.clip import FaceClip
from affect.face.tracks import person_named, persons
from affect.settings.extraction import Tracking
from affect.storage.extracted import Extracted
from affect.tracks.features import faces_of
from tests.face.crossing import extract, extractor, film, lip_area

SIDE, FPS, SECONDS = 512, 20, 4
ENLARGED = 1.5
# The astronaut's mouth in pixels of the photograph, measured once with MediaPipe's face landmarker.
MOUTH_X, MOUTH_HALF_WIDTH, UPPER_LIP, LOWER_LIP, CHIN = 223.4, 21.1, 143.2, 149.2, 177.4
MOUTH_INSIDE = (58.0, 22.0, 24.0)
SMILE_GAP, WIDEST = 5.0, 15.0
"""Pixels by which the photograph's lips are apart, and by which the widest mouth is."""
SPECS = video_specs("demo")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> FaceClip:
    return extractor(tmp_path_factory.mktemp("truth") / "grada")


def talking(openness: float, time_s: float) -> ndarray:
    """The astronaut enlarged, swaying and nodding slowly; the jaw alone moves.

    Args:
        openness: 0 closes the smile's gap, 1 opens the mouth widest.
        time_s: decides where the head is.
    """
    turn, scale = 0.05 * np.sin(1.3 * time_s), ENLARGED + 0.05 * np.sin(0.7 * time_s)
    down, right = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    right, down = right - 256 - 10 * np.sin(0.9 * time_s), down - 300 - 6 * np.sin(1.7 * time_s)
    x = MOUTH_X + (np.cos(turn) * right + np.sin(turn) * down) / scale  # in the photograph, as all that follows
    y = UPPER_LIP + (np.cos(turn) * down - np.sin(turn) * right) / scale

    across = np.abs(x - MOUTH_X) / MOUTH_HALF_WIDTH
    lips = np.cos(across.clip(0, 1) * np.pi / 2)
    jaw = np.cos((across / 1.9).clip(0, 1) * np.pi / 2) ** 2  # one piece, wider than the mouth
    edge = LOWER_LIP - 3 * (1 - lips)
    chin = ((y - edge - 6) / (CHIN - edge - 6)).clip(0, 1)
    neck = (1 - (y - CHIN) / 28).clip(0, 1) ** 2
    drop = (openness * (SMILE_GAP + WIDEST) - SMILE_GAP) * (lips * (1 - chin) + jaw * chin) * neck
    inside = (y > UPPER_LIP + 5 - 0.5 * lips) & (y < edge + drop) & (across < 0.97) & (drop > 0.5)
    grid = np.stack([x, np.where(y - drop >= edge - 0.5, y - drop, y)], axis=-1)
    photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].double()  # (1, 3, 512, 512)
    at = torch.from_numpy((grid + 0.5) * 2 / SIDE - 1)[None]
    picture = functional.grid_sample(photo, at, padding_mode="border", align_corners=False)[0].permute(1, 2, 0).numpy()
    share = ndimage.gaussian_filter(inside.astype(np.float64), 0.9 * scale)[..., None]
    return (picture + share * (np.array(MOUTH_INSIDE) - picture)).round().astype(np.uint8)


def syllables(time_s: ndarray) -> ndarray:
    """Openness in [0, 1]: about three syllables a second of differing strength, and a pause."""
    strength = 0.6 + 0.4 * np.sin(1.9 * time_s)
    return strength * np.sin(np.pi * 3.1 * time_s) ** 2 * ((time_s < 2.0) | (time_s > 2.8))


def correlation(area: ndarray, truth: ndarray) -> float:
    """Pearson's r over the frames that were measured."""
    measured = ~np.isnan(area)
    return float(np.corrcoef(area[measured], truth[measured])[0, 1])


def test_lip_area_follows_the_true_openness_of_a_mouth(faces: FaceClip, tmp_path: Path):
    times = np.arange(FPS * SECONDS) / FPS
    truth = syllables(times)
    pictures = (talking(float(o), float(t)) for o, t in zip(truth, times, strict=True))
    extracted = extract(faces, film(tmp_path / "talking.mp4", pictures, FPS))
    [person] = persons(faces_of(extracted.table), Tracking())
    area = lip_area(person, extracted, len(times))
    assert np.isfinite(area).all()
    r = correlation(area, truth)
    print(f"r = {r:.4f}, {np.nanmin(area):.5f} to {np.nanmax(area):.5f} squared sides of the crop")
    assert r >= 0.95
    assert area[truth < 0.02].mean() < 0.2 * area[truth > 0.6].mean(), "closed is near 0"


def filmed(spec: VideoSpec, folder: Path, faces: FaceClip, step: int = 1) -> tuple[Extracted, list[ndarray]]:
    """The faces of every step-th frame of a video of the demo, and how far each one's jaw is down at these frames."""
    ticks = demo._frame_ticks(np.random.default_rng((*spec.seed, 0)), spec)[::step]
    times = ticks / TICKS
    states = [demo._perform(person, spec.seconds).at(times) for person in spec.people]
    path = folder / f"{spec.name}.mp4"
    write_film(path, demo._pictures(spec, states, times), ticks, None, spec.fps)
    return extract(faces, path), [state[:, 2] for state in states]


@pytest.mark.slow
def test_left_and_right_are_whom_they_name_in_every_frame_of_the_demo(faces: FaceClip, tmp_path: Path):
    [spec] = [spec for spec in SPECS if len(spec.people) == 2]
    extracted, jaws = filmed(spec, tmp_path, faces)
    found, num_frames = faces_of(extracted.table), len(jaws[0])
    people = persons(found, Tracking())
    assert len(people) == 2
    for name, low, high in (("left", 0.0, 0.5), ("right", 0.5, 1.0)):
        person = person_named(people, found, name)
        assert person is not None and person.frame.tolist() == list(range(num_frames))
        assert (person.box[:, 0] >= low - 0.05).all() and (person.box[:, 2] <= high + 0.05).all()
    [speaker] = [n for n, person in enumerate(spec.people) if person.speaks]
    rs = [correlation(lip_area(person, extracted, num_frames), jaws[speaker]) for person in people]
    print(f"r with the speaker's jaw: {rs[speaker]:.3f} the speaker's lips, {rs[1 - speaker]:.3f} the other's")
    assert rs[speaker] >= 0.7 and abs(rs[1 - speaker]) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("spec", [spec for spec in SPECS if len(spec.people) == 1], ids=lambda spec: spec.name)
def test_lip_area_follows_the_jaw_of_every_person_of_the_demo(spec: VideoSpec, faces: FaceClip, tmp_path: Path):
    extracted, [jaw] = filmed(spec, tmp_path, faces, step=2)
    [person] = persons(faces_of(extracted.table), Tracking())
    area = lip_area(person, extracted, len(jaw))
    r = correlation(area, jaw)
    print(f"{spec.name}: r = {r:.3f}, measured in {np.isfinite(area).mean():.3f} of {len(jaw)} frames")
    assert np.isfinite(area).mean() >= 0.98 and r >= 0.7
