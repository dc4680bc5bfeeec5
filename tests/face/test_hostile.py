"""Broken and odd videos through the face extraction: each ends in ok, degraded or failed, and says why."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from numpy import ndarray

from affect.corpus import video
from affect.corpus.clip import Clip
from affect.corpus.video import MediaError
from affect.face.clip import FaceClip
from affect.face.encoding import Encoding
from affect.face.mesh import Mesh
from affect.settings.extraction import Grid
from affect.storage.columns import matrix
from affect.storage.extracted import Extracted
from tests.face.crossing import add_person, extract, extractor, film, to_bytes, wall
from tests.media import turned

HEIGHT, WIDTH = 240, 320
FACE_AT, SCALE = (200.0, 90.0), 0.9
"""Middle of the face in pixels of the pictures made here, right of their middle."""


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> FaceClip:
    return extractor(tmp_path_factory.mktemp("hostile") / "grada")


def portrait(face: tuple[float, float] = FACE_AT) -> ndarray:
    """One person before a grey wall, 320 x 240."""
    picture = wall(HEIGHT, WIDTH, (0.5, 0.5, 0.5))
    add_person(picture, face, SCALE)
    return to_bytes(picture)


def middles(extracted: Extracted) -> ndarray:
    """Middles of the boxes (faces, 2) as shares of width and height."""
    box = matrix(extracted.table["box"], 4)
    return (box[:, :2] + box[:, 2:]) / 2


def sound(extracted: Extracted, num_frames: int) -> bool:
    """Whether an outcome keeps what every one promises."""
    box, frame = matrix(extracted.table["box"], 4), extracted.table["frame"].to_numpy()
    inside = bool((box >= 0).all() and (box <= 1).all() and (box[:, :2] < box[:, 2:]).all())
    told = (extracted.status == "ok") == (extracted.reason == "")
    in_order = bool((np.diff(frame) >= 0).all() and ((frame >= 0) & (frame < num_frames)).all())
    return inside and told and in_order and extracted.status in ("ok", "degraded", "failed")


def assert_one_upright_face(extracted: Extracted, num_frames: int) -> None:
    assert extracted.status == "ok" and sound(extracted, num_frames), extracted.reason
    assert extracted.table["frame"].to_pylist() == list(range(num_frames))
    wanted = np.array(FACE_AT) / [WIDTH, HEIGHT]
    assert np.abs(middles(extracted) - wanted).max() < 0.06
    assert extracted.table["lip_area"].null_count == 0


def test_black_frames_have_no_face(faces: FaceClip, tmp_path: Path):
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    extracted = extract(faces, film(tmp_path / "black.mp4", [black] * 5, 5))
    assert (extracted.status, extracted.reason, extracted.table.num_rows) == ("degraded", "no face found", 0)


def test_black_frames_between_others_cost_only_themselves(faces: FaceClip, tmp_path: Path):
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    extracted = extract(faces, film(tmp_path / "flash.mp4", [portrait(), black, black, portrait()], 5))
    assert extracted.status == "ok" and extracted.table["frame"].to_pylist() == [0, 3]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("grey.mp4", "libx264", "gray"),
        ("ten_bits.mp4", "libx265", "yuv420p10le"),
        ("full_chroma.mkv", "libx264", "yuv444p"),
    ],
)
def test_a_face_is_found_in_grey_and_in_ten_bits(name: str, codec: str, pix_fmt: str, faces: FaceClip, tmp_path: Path):
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = film(tmp_path / name, [portrait()] * 3, 5, codec, pix_fmt, options)
    assert_one_upright_face(extract(faces, path), 3)


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_a_face_in_a_turned_recording_is_found_upright(quarter_turns: int, faces: FaceClip, tmp_path: Path):
    lying = np.ascontiguousarray(np.rot90(portrait(), quarter_turns))  # the camera was held sideways
    path = film(tmp_path / "phone.mp4", [lying] * 3, 5)
    path.write_bytes(turned(path.read_bytes(), quarter_turns))
    assert_one_upright_face(extract(faces, path), 3)


def test_a_face_is_found_in_8k(faces: FaceClip, tmp_path: Path):
    small = portrait()
    large = np.zeros((4320, 7680, 3), np.uint8)
    large[:, 960:6720] = np.repeat(np.repeat(small, 18, axis=0), 18, axis=1)
    path = film(tmp_path / "8k.mp4", [large] * 2, 5, options={"preset": "ultrafast", "crf": "30"})
    extracted = extract(faces, path)
    assert extracted.status == "ok" and extracted.table["frame"].to_pylist() == [0, 1]
    wanted = np.array([960 + 18 * FACE_AT[0], 18 * FACE_AT[1]]) / [7680, 4320]
    assert np.abs(middles(extracted) - wanted).max() < 0.06


@pytest.mark.parametrize("side", [2, 16, 34])
def test_tiny_pictures_have_no_face(side: int, faces: FaceClip, tmp_path: Path):
    step = HEIGHT // side
    tiny = np.ascontiguousarray(portrait()[::step, ::step][:side, :side])
    extracted = extract(faces, film(tmp_path / "tiny.mp4", [tiny] * 3, 5))
    assert sound(extracted, 3) and extracted.status in ("ok", "degraded")
    assert side > 16 or (extracted.status, extracted.reason) == ("degraded", "no face found")


@pytest.mark.parametrize(
    ("end", "gone"),
    # out of the top only half: where shoulders alone are left, the detector may take the collar for a face
    [((400.0, 90.0), True), ((-80.0, 90.0), True), ((160.0, 320.0), True), ((160.0, 0.0), False)],
    ids=["right", "left", "bottom", "top"],
)
def test_a_face_that_leaves_the_picture_has_its_box_inside(
    end: tuple[float, float], gone: bool, faces: FaceClip, tmp_path: Path
):
    start = np.array([160.0, 100.0])
    steps = [start + share * (np.array(end) - start) for share in np.linspace(0, 1, 13)]
    pictures = (portrait((float(x), float(y))) for x, y in steps)
    extracted = extract(faces, film(tmp_path / "leaves.mp4", pictures, 5))
    frames = extracted.table["frame"].to_pylist()
    assert extracted.status == "ok" and sound(extracted, 13)
    assert frames[:3] == [0, 1, 2] and (12 in frames) != gone
    box = matrix(extracted.table["box"], 4)
    assert (box == 0).any() or (box == 1).any(), "some box ends at the picture's edge"


def test_of_a_crowd_the_largest_faces_are_kept_and_the_clip_says_so(tmp_path: Path):
    few = extractor(tmp_path / "grada", max_faces=4)
    crowd = wall(400, 600, (0.5, 0.5, 0.5))
    places = [(x, y) for y in (100.0, 300.0) for x in (100.0, 300.0, 500.0)]
    small = {places[1], places[3]}
    for tile, place in enumerate(places):
        part = wall(200, 200, (0.5, 0.5, 0.5))
        add_person(part, (100.0, 100.0), 0.75 if place in small else 1.0)
        crowd[tile // 3 * 200 :, tile % 3 * 200 :][:200, :200] = part
    alone = wall(400, 600, (0.5, 0.5, 0.5))
    add_person(alone, (300.0, 150.0), 1.2)
    pictures = [to_bytes(crowd), to_bytes(crowd), to_bytes(alone), to_bytes(crowd)]
    extracted = extract(few, film(tmp_path / "crowd.mp4", pictures, 5))
    assert extracted.status == "degraded" and sound(extracted, 4)
    assert extracted.reason == "3 frames show more than 4 faces, the largest are kept"
    frame = extracted.table["frame"].to_numpy()
    assert np.bincount(frame).tolist() == [4, 4, 1, 4]
    wanted = np.array(sorted(set(places) - small)) / [600, 400]
    for number in (0, 1, 3):
        found = middles(extracted)[frame == number]
        assert (np.diff(found[:, 0]) > -0.05).all(), "they are listed from left to right"
        assert all(np.abs(found - place).sum(axis=1).min() < 0.1 for place in wanted)
        assert extracted.table["face"].to_numpy()[frame == number].tolist() == [0, 1, 2, 3]


def walking(folder: Path, name: str, num_frames: int = 12) -> Path:
    """A person who moves a little, every frame a keyframe."""
    pictures = [portrait((150.0 + 3 * k, 100.0)) for k in range(num_frames)]
    return film(folder / name, pictures, 5, options={"g": "1", "bf": "0", "preset": "superfast"})


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
def test_a_cut_off_file_has_the_faces_that_are_left(name: str, faces: FaceClip, tmp_path: Path):
    path = walking(tmp_path, name)
    content = path.read_bytes()
    outcomes = {}
    for share in (0.0, 0.02, 0.3, 0.6, 0.97):
        path.write_bytes(content[: int(len(content) * share)])
        try:
            extracted = extract(faces, path)
        except MediaError as error:
            assert str(error)
            outcomes[share] = 0
        else:
            assert sound(extracted, 12)
            outcomes[share] = extracted.table.num_rows
    print(f"{name}: faces by share of the file {outcomes}")
    assert outcomes[0.0] == 0 and list(outcomes.values()) == sorted(outcomes.values())
    assert (outcomes[0.97] >= 10) == (name != "a.mp4"), "an MP4 says at its end what is in it"


@pytest.mark.parametrize("seed", range(6))
def test_a_file_with_flipped_bytes_ends_with_a_reason_or_is_refused(seed: int, faces: FaceClip, tmp_path: Path):
    path = walking(tmp_path, "a.mkv" if seed % 2 else "a.mp4")
    rng = np.random.default_rng(seed)
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    at = rng.integers(0, len(content), 1 + len(content) // [5000, 1000, 200][seed // 2])
    content[at] = rng.integers(0, 256, len(at))
    path.write_bytes(content.tobytes())
    try:
        extracted = extract(faces, path)
    except MediaError as error:
        assert str(error)
    else:
        num_frames = len(video.probe(str(path), path.name).time_s)
        assert sound(extracted, num_frames), (extracted.status, extracted.reason)


def damaged(path: Path, packets: list[int]) -> None:
    """Overwrite the pictures of some frames with zeros."""
    with av.open(str(path)) as container:
        parts = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    content = path.read_bytes()
    for number in packets:
        content = content.replace(parts[number], bytes(len(parts[number])))
    path.write_bytes(content)


def test_frames_that_cannot_be_decoded_are_counted(faces: FaceClip, tmp_path: Path):
    path = walking(tmp_path, "a.mkv")
    damaged(path, [4, 7])
    extracted = extract(faces, path)
    assert extracted.status == "degraded" and sound(extracted, 12)
    assert extracted.reason == "2 of 12 frames cannot be decoded"
    assert extracted.table["frame"].to_pylist() == [0, 1, 2, 3, 5, 6, 8, 9, 10, 11]


def test_answers_that_are_not_finite_are_left_out_and_counted(
    faces: FaceClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, encode = walking(tmp_path, "a.mkv"), faces._encode

    class Spoilt:
        crop, known = encode.crop, encode.known

        def __call__(self, crops: ndarray, meshes: Sequence[Mesh | None]) -> Encoding:
            answers = encode(crops, meshes)
            for row, (answer, value) in enumerate(zip(answers, [np.nan, np.inf, -np.inf], strict=True)):
                answer[row, 0] = value
            return answers

    monkeypatch.setattr(faces, "_encode", Spoilt())
    extracted = extract(faces, path)
    assert extracted.status == "degraded" and extracted.reason == "answers for 6 of 12 faces are not finite"
    assert extracted.table["frame"].to_pylist() == [3, 4, 5, 6, 7, 11]  # of batches of eight and of four
    assert np.isfinite(matrix(extracted.table["embedding"])).all()


def test_a_clip_of_which_nothing_can_be_decoded_has_failed(faces: FaceClip, tmp_path: Path):
    path = walking(tmp_path, "a.mkv")
    damaged(path, list(range(5, 12)))
    info = video.probe(str(path), path.name)
    extracted = faces(Clip(str(path), info, 1.0, 10.0, Grid()))
    assert (extracted.status, extracted.reason) == ("failed", "not one frame can be decoded")
    assert extracted.table.num_rows == 0


def test_a_video_that_is_gone_or_no_video_any_more_is_an_error_of_media(faces: FaceClip, tmp_path: Path):
    path = walking(tmp_path, "a.mp4")
    info = video.probe(str(path), path.name)
    path.write_bytes(b"nothing of a video " * 99)
    with pytest.raises(MediaError, match="cannot be opened"):
        faces(Clip(str(path), info, 0.0, 10.0, Grid()))


def test_a_clip_behind_the_end_of_its_video_is_empty(faces: FaceClip, tmp_path: Path):
    path = walking(tmp_path, "a.mp4", num_frames=3)
    extracted = faces(Clip(str(path), video.probe(str(path), path.name), 60.0, 120.0, Grid()))
    assert (extracted.status, extracted.reason, extracted.table.num_rows) == ("ok", "", 0)
