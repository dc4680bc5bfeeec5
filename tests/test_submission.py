"""The challenge's text format, in and out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affect.evaluation.submission import HEADER, SubmissionError, fill, read_template, tracks_of


def template(*locations: str) -> str:
    return "\n".join([HEADER, *locations]) + "\n"


@given(
    st.dictionaries(st.sampled_from(["a", "b c", "d_left", "e/f"]), st.integers(1, 40), min_size=1),
    st.randoms(use_true_random=False),
)
def test_a_submission_is_the_templates_rows_in_the_templates_order(lengths: dict[str, int], random):
    locations = [f"{track}/{frame:05d}.jpg" for track, n in lengths.items() for frame in range(1, n + 1)]
    random.shuffle(locations)
    predictions = {track: np.random.default_rng(n).uniform(-1, 1, size=(n, 2)) for track, n in lengths.items()}
    header, *lines = fill(read_template(template(*locations), "t"), predictions).rstrip("\n").split("\n")
    assert header == HEADER and [line.split(",")[0] for line in lines] == locations
    for line in lines:
        location, *values = line.split(",")
        track, _, image = location.rpartition("/")
        expected = predictions[track][int(image[:5]) - 1]
        assert [float(value) for value in values] == pytest.approx(expected.tolist(), abs=1e-6)


def test_values_are_clipped():
    rows = read_template(template("a/00001.jpg"), "t")
    assert fill(rows, {"a": np.array([[1.5, -7.0]])}) == template("a/00001.jpg,1.000000,-1.000000")


def test_a_template_may_come_with_values_a_byte_order_mark_and_other_newlines():
    rows = read_template("\ufeff" + template("v/x/00010.jpg,0,0", "a/00001.jpg,-5,-5").replace("\n", "\r\n"), "t")
    assert [(row.track, row.frame) for row in rows] == [("v/x", 9), ("a", 0)] and tracks_of(rows) == ["v/x", "a"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["first line"]),
        ("valence,arousal\n", ["first line", "valence,arousal"]),
        (template("a/00001.jpg", "a/00000.jpg"), ["line 3", "a/00000.jpg"]),
        (template("00001.jpg"), ["line 2", "00001.jpg"]),
        (template("a/first.jpg"), ["line 2", "a/first.jpg"]),
        (template("a/-0001.jpg"), ["line 2"]),
        (template("a/²².jpg"), ["line 2", "²²"]),
        (template("a/00001.jpg", "", "a/00002.jpg"), ["line 3"]),
        (template("/00001.jpg"), ["line 2"]),
    ],
)
def test_a_bad_template_is_one_line_that_names_file_and_row(text: str, words: list[str]):
    with pytest.raises(SubmissionError) as raised:
        read_template(text, "template.txt")
    message = str(raised.value)
    assert all(word in message for word in ["template.txt", *words]) and "\n" not in message


def test_up_to_two_frames_that_the_video_lacks_take_the_last_prediction():
    rows = read_template(template("a/00002.jpg", "a/00003.jpg", "a/00004.jpg"), "t")
    lines = fill(rows, {"a": np.array([[0.0, 0.0], [0.5, -0.5]])}).split("\n")
    assert [line.split(",", 1)[1] for line in lines[1:4]] == ["0.500000,-0.500000"] * 3
    with pytest.raises(SubmissionError, match=r"a/00005\.jpg: no prediction, track a has 2"):
        fill(read_template(template("a/00005.jpg"), "t"), {"a": np.zeros((2, 2))})


@pytest.mark.parametrize("values", [np.empty((0, 2)), np.array([[0.0, np.nan]]), np.array([[np.inf, 0.0]])])
def test_a_row_without_a_finite_prediction_is_an_error_that_names_it(values: np.ndarray):
    with pytest.raises(SubmissionError, match=r"a/00001\.jpg: no prediction"):
        fill(read_template(template("a/00001.jpg"), "t"), {"a": values})


def test_a_track_without_predictions_is_an_error_that_names_it():
    with pytest.raises(SubmissionError, match=r"b/00001\.jpg: no prediction for track b"):
        fill(read_template(template("b/00001.jpg"), "t"), {"a": np.zeros((2, 2))})
