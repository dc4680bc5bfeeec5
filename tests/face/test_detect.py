"""Two detectors with one contract on a photograph (NASA's, in scikit-image)."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numpy import ndarray

from affect import weights
from affect.face.detect import Boxes, Detector, Mediapipe, Yolo, load
from affect.settings.extraction import Face
from tests import assets


def yolo(**changes: str | float) -> Face:
    """Settings of a YOLO that finds persons."""
    return Face(**{"detector": "yolo", "yolo_weights": str(assets.checkpoint()), "yolo_class": "person", **changes})


@pytest.fixture(scope="module")
def mediapipe() -> Detector:
    """The default."""
    try:
        return load(Face())
    except weights.WeightsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def persons() -> Detector:
    """A YOLO that finds persons."""
    if importlib.util.find_spec("ultralytics") is None:
        pytest.skip("the extra yolo is not installed")
    return load(yolo())


@pytest.fixture(params=["mediapipe", "persons"])
def detect(request: pytest.FixtureRequest) -> Detector:
    """Each of the two."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def photo() -> ndarray:
    """An astronaut, 512 x 512, her face around (225, 130)."""
    from skimage import data

    return data.astronaut()


def same(a: Boxes, b: Boxes) -> bool:
    """Whether two answers are one, but for rounding."""
    return (
        a.box.shape == b.box.shape
        and a.box == pytest.approx(b.box, abs=1e-3)
        and a.score == pytest.approx(b.score, abs=1e-3)
    )


def test_the_settings_name_the_detector(mediapipe: Detector, persons: Detector):
    assert isinstance(mediapipe, Mediapipe) and isinstance(persons, Yolo)


def test_a_face_is_found_where_it_is(mediapipe: Detector, photo: ndarray):
    [found] = mediapipe([photo])
    [[left, top, right, bottom]], [score] = found.box * 512, found.score
    assert left < 225 < right and top < 130 < bottom and 80 < right - left < 200 and 80 < bottom - top < 220
    assert 0.5 < score <= 1


def test_a_person_is_found_where_she_is(persons: Detector, photo: ndarray):
    [found] = persons([photo])
    [[left, top, right, bottom]], [score] = found.box * 512, found.score
    assert left < 100 and top < 60 and 300 < right < 420 and bottom > 480 and 0.5 < score <= 1


def test_colours_are_read_as_red_green_and_blue(persons: Detector, photo: ndarray):
    from PIL import Image
    from ultralytics import YOLO

    [reference] = YOLO(assets.checkpoint()).predict(Image.fromarray(photo), conf=0.35, verbose=False, save=False)
    boxes = reference.boxes.cpu().numpy()
    expected = Boxes(boxes.xyxyn.astype(np.float64), boxes.conf.astype(np.float64))
    assert same(persons([photo])[0], expected)
    assert not same(persons([np.ascontiguousarray(photo[..., ::-1])])[0], expected)


def test_boxes_are_shares_within_the_picture_and_scores_within_their_range(detect: Detector, photo: ndarray):
    pictures = [photo, photo[:300, 130:330], photo[60:200, 160:290], photo[60:460, 225:]]
    for found in (detect([np.ascontiguousarray(picture)])[0] for picture in pictures):
        assert found.box.shape == (len(found.score), 4) and found.box.dtype == found.score.dtype == np.float64
        assert ((found.box >= 0) & (found.box <= 1)).all() and (found.box[:, :2] < found.box[:, 2:]).all()
        assert ((found.score >= Face().min_confidence) & (found.score <= 1)).all()
    assert sum(len(detect([np.ascontiguousarray(picture)])[0].score) for picture in pictures) >= 3


def test_a_mirrored_picture_has_the_mirrored_box(detect: Detector, photo: ndarray):
    [plain], [mirrored] = detect([photo]), detect([np.ascontiguousarray(photo[:, ::-1])])
    assert 1 - mirrored.box[0, [2, 0]] == pytest.approx(plain.box[0, [0, 2]], abs=0.05)
    assert mirrored.box[0, [1, 3]] == pytest.approx(plain.box[0, [1, 3]], abs=0.05)


def test_a_padded_picture_has_the_same_face_at_another_share(detect: Detector, photo: ndarray):
    padded = np.zeros((512, 768, 3), dtype=np.uint8)
    padded[:, 256:] = photo
    [plain], [moved] = detect([photo]), detect([padded])
    assert moved.box[0] * [768, 512, 768, 512] - [256, 0, 256, 0] == pytest.approx(plain.box[0] * 512, abs=20)


def test_two_faces_are_two(mediapipe: Detector, photo: ndarray):
    portrait = photo[:300, 100:350]  # a face narrower than a tenth of the picture would not be found
    [found] = mediapipe([np.concatenate([portrait, portrait], axis=1)])
    left, right = sorted(found.box.tolist())
    assert left[2] < 0.5 < right[0] and right[0] - left[0] == pytest.approx(0.5, abs=0.02)


def test_a_batch_gives_what_each_picture_gives_alone(detect: Detector, photo: ndarray):
    pictures = [photo, np.ascontiguousarray(photo[:, ::-1]), np.full_like(photo, 90), photo]
    together = detect(pictures)
    assert [len(found.score) for found in together] == [1, 1, 0, 1]
    for picture, found in zip(pictures, together, strict=True):
        assert same(found, detect([picture])[0])


@pytest.mark.parametrize("shape", [(480, 640), (1, 1), (33, 7), (7, 1500)])
def test_a_blank_picture_has_nobody_whatever_its_size(detect: Detector, shape: tuple[int, int]):
    [found] = detect([np.full((*shape, 3), 90, dtype=np.uint8)])
    assert found.box.shape == (0, 4) and found.score.shape == (0,)


def test_a_view_of_a_picture_is_read_as_it_looks(detect: Detector, photo: ndarray):
    view = photo[::-1, ::-1][:, ::-1][::-1]
    view.flags.writeable = False
    assert same(detect([view])[0], detect([photo])[0])


def test_a_higher_threshold_finds_a_part_of_what_a_lower_one_finds(photo: ndarray, persons: Detector):
    many = load(yolo(min_confidence=0.01))([photo])[0].score
    [few], none = persons([photo])[0].score, load(yolo(min_confidence=0.99))([photo])[0].score
    assert len(many) > 1 and many.max() == pytest.approx(few, abs=1e-4) and len(none) == 0


def test_a_class_that_the_checkpoint_does_not_know_is_an_error_that_lists_those_it_knows(persons: Detector):
    with pytest.raises(ValueError, match=r"yolo11n-pose\.pt knows no class 'face', only person$"):
        load(yolo(yolo_class="face"))


@pytest.mark.parametrize("name", ["missing.pt", "."])
def test_a_checkpoint_that_is_no_file_is_an_error_that_names_it(tmp_path: Path, name: str):
    settings = Face(detector="yolo", yolo_weights=str(tmp_path / name))
    with pytest.raises(weights.WeightsError, match=rf"{tmp_path / name}: no such file; name an Ultralytics"):
        load(settings)


def test_a_missing_landmarker_is_an_error_that_names_it(tmp_path: Path):
    with pytest.raises(weights.WeightsError, match=r"missing\.task: no such file"):
        load(Face(landmarker=str(tmp_path / "missing.task")))


def test_yolo_without_a_checkpoint_is_no_setting():
    with pytest.raises(ValueError, match="Face: detector yolo needs yolo_weights, the path of an Ultralytics"):
        Face(detector="yolo")


def test_a_file_that_is_no_checkpoint_is_said(persons: Detector, tmp_path: Path):
    path = tmp_path / "broken.pt"
    path.write_bytes(b"nothing")
    with pytest.raises(weights.WeightsError, match=r"broken\.pt is no Ultralytics checkpoint"):
        load(Face(detector="yolo", yolo_weights=str(path)))


def test_no_picture_has_no_faces(persons: Detector, mediapipe: Detector):
    assert persons([]) == mediapipe([]) == []


def test_pictures_of_other_sizes_change_nothing_about_a_picture(persons: Detector, photo: ndarray):
    part = np.ascontiguousarray(photo[:300, 100:350])
    [alone] = persons([part])
    assert persons([photo, part, photo])[1].score == pytest.approx(alone.score)
