"""Videos by place: a folder, a bucket prefix, a pattern such as ``talks/*.mp4``, or files."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from affect.storage import files

SUFFIXES = tuple(".mp4 .m4v .mov .3gp .mkv .webm .avi .ts .mts .mpg .mpeg .wmv .flv .gif .ogv".split())
SOUND_SUFFIXES = tuple(".mp3 .wav .m4a .aac .flac .ogg .oga .opus .wma".split())
"""Files of sound alone, which a user may take for videos: they are named where a folder has them."""
Places = str | Sequence[str]
"""One place, or several."""


class File(NamedTuple):
    """A video's file.

    Args:
        stem: its name without the suffix, what tracks are named after.
        path: relative to the folder, the prefix or the fixed part of the pattern that it was found by.
        uri: where it is.
        bytes: its size.
        version: changes whenever the file does, as :func:`affect.storage.files.walk` has it.
    """

    stem: str
    path: str
    uri: str
    bytes: int
    version: str


class Found(NamedTuple):
    """What is at some places.

    Args:
        videos: by stem, in the order of their paths.
        misnamed: videos whose names are not UTF-8, so that no table can hold them, as they can be printed.
        sound: paths of files of sound alone, which are left out.
    """

    videos: dict[str, File]
    misnamed: list[str]
    sound: list[str]


def as_list(places: Places) -> list[str]:
    """Places one by one."""
    return [places] if isinstance(places, str) else list(places)


def find(places: Places) -> Found:
    """Find videos.

    Args:
        places: folders, bucket prefixes, patterns or files; a video that two of them have counts once.

    Raises:
        ValueError: a place is missing or has no video, or two videos have one stem.
    """
    videos: dict[str, File] = {}
    misnamed: list[str] = []
    sound: list[str] = []
    named = as_list(places)
    if not named:
        raise ValueError("no video is named: give folders, a bucket prefix or videos with --videos")
    for place in named:
        found, odd, mute = _find(place)
        if not found:
            looked = f"{odd[0]} is no UTF-8: rename it" if odd else f"looked for {', '.join(SUFFIXES)}"
            raise ValueError(f"{place}: no video in it ({looked})")
        misnamed, sound = misnamed + odd, sound + mute
        for file in found:
            other = videos.setdefault(file.stem, file)
            if other.uri != file.uri:
                names = (other.path, file.path) if other.path != file.path else (other.uri, file.uri)
                raise ValueError(
                    f"{place}: {names[0]} and {names[1]} have the same stem, tracks could not tell them apart"
                )
    return Found(dict(sorted(videos.items(), key=lambda item: item[1].path)), misnamed, sound)


def _find(place: str) -> tuple[list[File], list[str], list[str]]:
    root, rows = _walk(place)
    named = [row for row in rows if _can_be_written(row[0])]
    misnamed = [
        files.join(root, ascii(path)[1:-1]) for path, _, _ in rows if _is(SUFFIXES, path) and not _can_be_written(path)
    ]
    single = len(rows) == 1 and files.join(root, rows[0][0]) == files.absolute(place)  # a file may be called anything
    videos = [
        File(PurePosixPath(path).stem, path, files.join(root, path), size, version)
        for path, size, version in named
        if single or _is(SUFFIXES, path)
    ]
    return videos, misnamed, [] if single else [path for path, _, _ in named if _is(SOUND_SUFFIXES, path)]


def _walk(place: str) -> tuple[str, list[tuple[str, int, str]]]:
    """The folder that paths are relative to, and all files: paths, sizes, versions."""
    whole = files.absolute(place)
    system, path = files.resolve(whole)
    if any(mark in place for mark in "*?[") and not system.exists(path):  # a file may be called so
        root = whole[: min(whole.find(mark) for mark in "*?[" if mark in whole)].rpartition("/")[0]
        matching, top = set(system.glob(path)), files.resolve(root)[1].rstrip("/")
        return root, [row for row in files.walk(root) if f"{top}/{row[0]}" in matching]
    if not system.exists(path):
        raise ValueError(f"{place}: no such folder or file; give folders, a bucket prefix or videos with --videos")
    return whole.rpartition("/")[0] if system.isfile(path) else whole, list(files.walk(place))


def _can_be_written(path: str) -> bool:
    return not any("\ud800" <= mark <= "\udfff" for mark in path)


def _is(suffixes: tuple[str, ...], path: str) -> bool:
    name = PurePosixPath(path)
    return name.suffix.lower() in suffixes and not name.name.startswith(".")
