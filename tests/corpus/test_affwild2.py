"""Label files and names of tracks: what is read, what is refused, and which person of which video a track is."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affect.corpus import affwild2
from affect.corpus.affwild2 import (
    LabelError,
    check_length,
    parse_annotation,
    person_of,
    read_folder,
    read_splits,
    video_of,
)

HEADER = "valence,arousal\n"
values = st.floats(-1, 1, allow_subnormal=False)
rows = st.one_of(st.tuples(values, values), st.just((-5.0, -5.0)))


@given(st.lists(rows, min_size=1, max_size=30), st.sampled_from(["\n", "\r\n"]), st.integers(0, 3))
def test_every_annotated_row_comes_back_and_the_others_are_nan(pairs: list, newline: str, spare_lines: int):
    text = newline.join(["valence,arousal", *(f"{v!r},{a!r}" for v, a in pairs)]) + newline * spare_lines
    parsed = parse_annotation(text, "a.txt")
    expected = np.array(pairs)
    missing = (expected == -5).all(axis=1)
    assert parsed.shape == (len(pairs), 2) and np.isnan(parsed[missing]).all()
    assert (parsed[~missing] == expected[~missing]).all()


def test_minus_five_appears_nowhere_inside():
    parsed = parse_annotation(HEADER + ".5,-.25\n-5,-5\n-5.0,-5.0\n-1,1\n-5,0.3", "a.txt")
    assert np.isnan(parsed[[1, 2, 4]]).all() and parsed[[0, 3]].tolist() == [[0.5, -0.25], [-1, 1]]


@pytest.mark.parametrize(
    ("rows", "frames", "warns", "refused"),
    [
        (5000, 5000, False, False),
        (5000, 5049, False, False),  # the most that the real corpus has
        (4900, 5000, True, False),  # 2 %, and no more than 100 rows
        (19_850, 20_000, True, False),  # 150 rows, and less than 1 %
        (4800, 5000, False, True),
        (5201, 5000, False, True),
        (20_400, 20_000, False, True),
        (107, 1337, False, True),
        (25, 50, False, True),
        (75, 50, False, True),
        (51, 50, True, False),
    ],
)
def test_labels_of_another_length_than_their_video_are_said_or_refused(
    rows: int, frames: int, warns: bool, refused: bool
):
    if not refused:
        said = check_length("a", rows, frames, frames / 25)
        assert bool(said) == warns and (not said or (f"{rows:,}" in said and f"{frames:,}" in said))
        return
    with pytest.raises(LabelError, match=f"{rows:,} label rows, but its video has {frames:,} frames"):
        check_length("a", rows, frames, frames / 25)


def test_ratings_by_the_second_are_guessed_to_be_such():
    with pytest.raises(LabelError, match=r"as many rows as seconds x 2: are these 2 ratings a second"):
        check_length("a", 400, 4800, 200.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["first line", "valence,arousal"]),
        ("arousal,valence\n0,0\n", ["first line", '"arousal,valence"']),
        ("0.1,0.2\n", ["first line", '"0.1,0.2"']),
        (HEADER, ["it has a header and no rows"]),
        (HEADER + "0,0\n0.5\n", ["row 2", '"0.5"', "two numbers"]),
        (HEADER + "0,0\n0,0,0\n", ["row 2", '"0,0,0"']),
        (HEADER + "0,0\n\n0,0\n", ["row 2", '""']),
        (HEADER + "a,b\n", ["row 1", '"a,b"']),
        (HEADER + "0,0\n0,0\n0.2,1.01\n", ["row 3", "1.01"]),
        (HEADER + "-4,0\n", ["row 1", "-4"]),
        (HEADER + "-5,7\n", ["row 1", "7"]),
        (HEADER + "nan,0\n", ["row 1", "nan"]),
        (HEADER + "0,inf\n", ["row 1", "inf"]),
    ],
)
def test_a_bad_label_file_is_one_line_that_names_file_row_and_value(text: str, words: list[str]):
    with pytest.raises(LabelError) as raised:
        parse_annotation(text, "Train_Set/a.txt")
    message = str(raised.value)
    assert all(word in message for word in ["Train_Set/a.txt", *words]) and "\n" not in message


def corpus(folder: Path, train: dict[str, bytes], development: dict[str, bytes]) -> str:
    """A labels folder with these files."""
    for name, content in (("Train_Set", train), ("Validation_Set", development)):
        (folder / name).mkdir(parents=True)
        for track, text in content.items():
            (folder / name / track).write_bytes(text)
    return str(folder)


GOOD = b"valence,arousal\n0.5,-0.5\n"


def test_splits_are_read_with_a_byte_order_mark_and_without_hidden_files(tmp_path: Path):
    labels = corpus(
        tmp_path, {"a.txt": b"\xef\xbb\xbf" + GOOD, "._a.txt": b"\x00\xff", "notes.md": b"x"}, {"b.txt": GOOD}
    )
    splits = affwild2.read_splits(labels)
    assert {split: list(tracks) for split, tracks in splits.items()} == {"train": ["a"], "development": ["b"]}
    assert splits["train"]["a"].tolist() == [[0.5, -0.5]]


def test_a_track_in_both_splits_is_an_error_that_names_it(tmp_path: Path):
    with pytest.raises(LabelError, match="track a is in Train_Set and in Validation_Set"):
        affwild2.read_splits(corpus(tmp_path, {"a.txt": GOOD, "c.txt": GOOD}, {"a.txt": GOOD}))


def test_a_split_without_label_files_is_an_error_that_names_the_folder(tmp_path: Path):
    with pytest.raises(LabelError, match=r"Validation_Set: no such folder, or no <track>\.txt"):
        affwild2.read_splits(corpus(tmp_path, {"a.txt": GOOD}, {}))
    with pytest.raises(LabelError, match=r"Train_Set: no such folder, or no <track>\.txt"):
        affwild2.read_splits(corpus(tmp_path / "other", {}, {"a.txt": GOOD}))
    with pytest.raises(LabelError, match="missing: no such folder, or no Validation_Set"):
        affwild2.read_splits(str(tmp_path / "missing"))


def test_a_label_file_that_is_no_text_is_an_error_that_names_it(tmp_path: Path):
    with pytest.raises(LabelError, match=r"a\.txt: no text file"):
        affwild2.read_folder(corpus(tmp_path, {"a.txt": HEADER.encode("utf-16")}, {}) + "/Train_Set")


@pytest.mark.parametrize(
    ("track", "videos", "tracks", "video", "person"),
    [
        ("v", ["v"], ["v"], "v", "main"),
        ("v_left", ["v"], ["v_left", "v_right"], "v", "left"),
        ("v_right", ["v"], ["v_left", "v_right"], "v", "right"),
        ("v", ["v"], ["v", "v_left"], "v", "right"),
        ("v", ["v"], ["v", "v_right"], "v", "left"),
        ("v_right", ["v"], ["v", "v_right"], "v", "right"),
        ("v", ["v"], ["v", "v_left", "v_right"], "v", "main"),
        ("v", ["v"], ["v", "vv_left", "v_leftish", "v_right_left"], "v", "main"),
        ("v_left", ["v_left"], ["v_left"], "v_left", "main"),  # a video of that very name
        ("v_left", ["v", "v_left"], ["v", "v_left"], "v_left", "main"),
        ("v", ["v", "v_left"], ["v", "v_left"], "v", "main"),  # the sibling's name is a video of its own
        ("v_left_right", ["v_left"], ["v_left_right", "v_left"], "v_left", "right"),
        ("v_left", ["v_left"], ["v_left_right", "v_left"], "v_left", "left"),
        ("v_left_left", ["v_left", "v"], ["v_left_left"], "v_left", "left"),
    ],
)
def test_a_name_says_which_person_of_which_video(track: str, videos: list, tracks: list, video: str, person: str):
    assert video_of(track, videos) == video
    assert person_of(track, video, tracks, videos) == person


@pytest.mark.parametrize("track", ["w", "w_left", "v_middle", "_left", "v_left_right"])
def test_a_track_without_a_video_is_an_error_that_names_it(track: str):
    with pytest.raises(LabelError, match=f"track {track} has no video"):
        video_of(track, ["v"])


def test_all_faults_of_a_label_folder_are_said_at_once(tmp_path: Path):
    texts = {"a": "valence,arousal\n0,0\n", "b": "v,a\n0,0\n", "c": "valence,arousal\n0,2\n", "d": "valence,arousal\n"}
    for split in ("Train_Set", "Validation_Set"):
        (tmp_path / split).mkdir()
    for name, text in texts.items():
        (tmp_path / "Train_Set" / f"{name}.txt").write_text(text)
    for name in ("a", "b"):
        (tmp_path / "Validation_Set" / f"{name}.txt").write_text(texts[name])
    with pytest.raises(LabelError, match="5 faults in the labels") as said:
        read_splits(str(tmp_path))
    lines = str(said.value).splitlines()
    named = [
        "Train_Set/b.txt",
        "Train_Set/c.txt: row 1",
        "Train_Set/d.txt",
        "Validation_Set/b.txt",
        "track a is in Train_Set and",
    ]
    assert len(lines) == 6 and all(sum(name in line for line in lines) == 1 for name in named)


def test_of_many_faults_the_first_are_named(tmp_path: Path):
    for number in range(30):
        (tmp_path / f"{number:02d}.txt").write_text("")
    with pytest.raises(LabelError, match="30 faults") as said:
        read_folder(str(tmp_path))
    assert str(said.value).endswith("and 10 more") and len(str(said.value).splitlines()) == 22
