"""MediaPipe's landmarker on a photograph (NASA's, in scikit-image)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from affect import weights
from affect.config import Face
from affect.face.detect import Landmarker, grow


@pytest.fixture(scope="module")
def detect() -> Landmarker:
    """The landmarker with the default thresholds."""
    try:
        model = weights.file("face_landmarker.task")
    except weights.WeightsError as error:
        pytest.skip(str(error))
    return Landmarker(model, Face())


@pytest.fixture(scope="module")
def photo() -> ndarray:
    """An astronaut, 512 x 512, her face around (225, 130)."""
    from skimage import data

    return data.astronaut()


def test_one_face_is_found_with_its_box_mouth_and_blendshapes(detect: Landmarker, photo: ndarray):
    [face] = detect(photo)
    left, top, right, bottom = face.box * 512
    assert left < 225 < right and top < 130 < bottom and 80 < right - left < 200 and 80 < bottom - top < 220
    assert face.lip_area is not None and 0.001 < face.lip_area < 0.05  # a smile that shows teeth
    assert face.blendshapes is not None and face.blendshapes.min() >= 0 and face.blendshapes.max() <= 1


def test_the_mouth_is_measured_in_the_crop_and_not_in_the_picture(detect: Landmarker, photo: ndarray):
    [alone] = detect(photo)
    [closer] = detect(np.ascontiguousarray(photo[:300, 75:375]))
    assert closer.box[0] * 300 + 75 == pytest.approx(alone.box[0] * 512, abs=8)
    assert closer.lip_area == pytest.approx(alone.lip_area, rel=0.25)


def test_a_blank_picture_has_no_face_whatever_its_size(detect: Landmarker):
    for height, width in [(480, 640), (1, 1), (33, 7)]:
        assert detect(np.full((height, width, 3), 90, dtype=np.uint8)) == []


def test_two_faces_are_listed_from_left_to_right(detect: Landmarker, photo: ndarray):
    portrait = photo[:300, 100:350]  # a face narrower than a tenth of the picture would not be found
    first, second = detect(np.concatenate([portrait, portrait], axis=1))
    assert first.box[2] < 0.5 < second.box[0]
    assert second.box[0] - first.box[0] == pytest.approx(0.5, abs=0.02)


def test_the_same_picture_gives_the_same_answer_after_others(detect: Landmarker, photo: ndarray):
    [before] = detect(photo)
    detect(photo[:, ::-1])
    [after] = detect(photo)
    assert (before.box == after.box).all() and before.lip_area == after.lip_area


@given(st.tuples(*[st.floats(0, 1)] * 4), st.floats(0, 0.9))
def test_a_grown_box_holds_the_old_one_and_stays_in_the_picture(corners: tuple, share: float):
    x, y = sorted(corners[:2]), sorted(corners[2:])
    box = np.array([x[0], y[0], x[1], y[1]])
    grown = grow(box, share)
    assert (grown[:2] <= box[:2]).all() and (grown[2:] >= box[2:]).all() and grown.min() >= 0 and grown.max() <= 1


def test_a_box_grows_on_each_side_by_its_share():
    assert grow(np.array([0.4, 0.2, 0.6, 0.6]), 0.1) == pytest.approx(np.array([0.38, 0.16, 0.62, 0.64]))
