"""Finding videos: folders, patterns, files, several of them, names that no table holds."""

import os
from pathlib import Path

import pytest

from affect.corpus.videos import WHOLE, Shard, find, part_of


def touch(folder: Path, *names: str) -> str:
    """A folder with these empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return str(folder)


def paths(*places: str) -> dict[str, str]:
    """Relative paths by stem."""
    return {stem: file.path for stem, file in find(places).videos.items()}


def test_videos_are_listed_by_stem_at_any_depth_and_hidden_files_are_not(tmp_path: Path):
    names = [
        "a.mp4",
        "deep/er/b.AVI",
        "c d [1].webm",
        "ü.mkv",
        "x.y.mov",
        "._a.mp4",
        ".hidden.mp4",
        "readme.txt",
        "mp4",
    ]
    folder = touch(tmp_path, *names)
    assert paths(folder) == {
        "a": "a.mp4",
        "b": "deep/er/b.AVI",
        "c d [1]": "c d [1].webm",
        "ü": "ü.mkv",
        "x.y": "x.y.mov",
    }
    assert find(folder).videos["b"].uri == f"{tmp_path}/deep/er/b.AVI"


def test_one_video_may_be_named_alone_whatever_its_suffix(tmp_path: Path):
    touch(tmp_path, "a.mp4", "b.mp4", "film.dat", "song.mp3")
    assert paths(f"{tmp_path}/a.mp4") == {"a": "a.mp4"}
    assert paths(f"{tmp_path}/film.dat") == {"film": "film.dat"} and paths(f"{tmp_path}/song.mp3").keys() == {"song"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.mp4", "deep/a.avi"], r"a\.mp4 and deep/a\.avi have the same stem"),
        (["a.txt", ".b.mp4"], "no video in it"),
        ([], "no such folder"),
    ],
)
def test_a_place_that_cannot_be_listed_says_why(names: list[str], message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        find(touch(tmp_path / "videos", *names))


def test_videos_whose_names_are_no_text_are_told_apart(tmp_path: Path):
    for name in (b"fine.mp4", b"caf\xe9.mp4", b"caf\xe9.txt"):
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_bytes(b"x")
    assert paths(str(tmp_path)) == {"fine": "fine.mp4"}
    assert find(str(tmp_path)).misnamed == [f"{tmp_path}/caf\\udce9.mp4"]


def test_a_pattern_means_the_videos_that_it_matches(tmp_path: Path):
    touch(tmp_path, "talks/a.mp4", "talks/b.mkv", "talks/deep/c.mp4", "odd[1].mp4", "notes.txt")
    assert paths(f"{tmp_path}/talks/*.mp4") == {"a": "a.mp4"}
    assert paths(f"{tmp_path}/talks/**/*.mp4") == {"a": "a.mp4", "c": "deep/c.mp4"}
    assert paths(f"{tmp_path}/talks/[ab].*") == {"a": "a.mp4", "b": "b.mkv"}
    assert paths(f"{tmp_path}/odd[1].mp4") == {"odd[1]": "odd[1].mp4"}  # a file that is called so
    with pytest.raises(ValueError, match="no video in it"):
        find(f"{tmp_path}/talks/*.avi")


def test_what_a_shell_makes_of_a_pattern_is_what_the_pattern_means(tmp_path: Path):
    """The same paths, so that the same features are found again."""
    touch(tmp_path, "talks/a.mp4", "talks/b.mp4", "more/c.mp4")
    quoted, listed = find(f"{tmp_path}/talks/*.mp4"), find([f"{tmp_path}/talks/a.mp4", f"{tmp_path}/talks/b.mp4"])
    assert quoted == listed
    assert paths(f"{tmp_path}/talks", f"{tmp_path}/more/c.mp4") == {"a": "a.mp4", "b": "b.mp4", "c": "c.mp4"}


def test_a_video_that_two_places_have_counts_once_and_two_of_one_name_are_refused(tmp_path: Path):
    touch(tmp_path, "talks/a.mp4", "more/a.mp4")
    assert paths(f"{tmp_path}/talks", f"{tmp_path}/talks/*.mp4") == {"a": "a.mp4"}
    with pytest.raises(ValueError, match=f"{tmp_path}/talks/a.mp4 and {tmp_path}/more/a.mp4 have the same stem"):
        find([f"{tmp_path}/talks", f"{tmp_path}/more"])


def test_files_of_sound_alone_in_a_folder_are_named(tmp_path: Path):
    folder = touch(tmp_path, "a.mp4", "song.mp3", "deep/b.WAV", "notes.txt", ".c.mp3")
    assert find(folder).sound == ["deep/b.WAV", "song.mp3"] and paths(folder) == {"a": "a.mp4"}


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "4", "1/2/3", "-1/2", "a/b", "", "1/ 2", "\u0661/2"])
def test_a_part_that_is_none_is_an_error(text: str):
    with pytest.raises(ValueError, match="--shard"):
        Shard.parse(text)


def test_parts_are_about_equal_and_hold_every_file_once(tmp_path: Path):
    names = [f"deep/{number}.mp4" for number in range(300)]
    found = find(touch(tmp_path, *names, *(f"{number}.wav" for number in range(50)), "caf\udce9.mp4"))
    parts = [part_of(found, Shard.parse(f"{number}/5")) for number in range(1, 6)]
    assert sorted(file for part in parts for file in part.videos.values()) == sorted(found.videos.values())
    assert sorted(path for part in parts for path in part.sound) == sorted(found.sound)
    assert [path for part in parts for path in part.misnamed] == found.misnamed
    assert all(30 < len(part.videos) < 90 for part in parts)
    assert part_of(found, WHOLE) == found
