"""Finds videos by place: a folder, a bucket prefix, a pattern such as ``talks/*.mp4``, or single files."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from affect.storage import files

SUFFIXES = tuple(".mp4 .m4v .mov .3gp .mkv .webm .avi .ts .mts .mpg .mpeg .wmv .flv .gif .ogv".split())
SOUND_SUFFIXES = tuple(".mp3 .wav .m4a .aac .flac .ogg .oga .opus .wma".split())
"""Suffixes of audio files, which are not videos; found ones are reported to the user."""
Places = str | Sequence[str]
"""One place or several."""


class File(NamedTuple):
    """File of a video.

    Args:
        stem: file name without the suffix; the names of tracks begin with it.
        path: path relative to the folder, the prefix, or the fixed part of the pattern.
        uri: absolute path or URI.
        bytes: size.
        version: modification time or ETag, see :func:`affect.storage.files.walk`.
    """

    stem: str
    path: str
    uri: str
    bytes: int
    version: str


class Found(NamedTuple):
    """Files found at some places.

    Args:
        videos: videos by stem, in the order of their paths.
        misnamed: printable forms of names that are not UTF-8; tables cannot hold them, so these videos are left out.
        sound: paths of audio files, which are left out.
    """

    videos: dict[str, File]
    misnamed: list[str]
    sound: list[str]


class Shard(NamedTuple):
    """One of several parts of all videos, for jobs that share the work without knowing of each other.

    Args:
        number: number of the part, from 1.
        of: number of parts.
    """

    number: int = 1
    of: int = 1

    @staticmethod
    def parse(text: str) -> "Shard":
        """Reads ``K/N``: part K of N.

        Raises:
            ValueError: it is none, with K from 1 to N.
        """
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        shard = Shard(int(match[1]), int(match[2])) if match else Shard(0, 0)
        if not 1 <= shard.number <= shard.of:
            raise ValueError(f"--shard {text} is not K/N, such as 2/8, with K from 1 to N")
        return shard

    def holds(self, path: str) -> bool:
        """Whether a video belongs to this part, by the hash of its path relative to its place."""
        digest = hashlib.sha256(path.encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest[:8]) % self.of == self.number - 1


WHOLE = Shard()
"""All videos."""


def part_of(found: Found, shard: Shard) -> Found:
    """Videos of one part. Tracks are resolved among all videos, so that a part does not change what they mean."""
    videos = {stem: file for stem, file in found.videos.items() if shard.holds(file.path)}
    return Found(videos, *([path for path in paths if shard.holds(path)] for paths in (found.misnamed, found.sound)))


def as_list(places: Places) -> list[str]:
    """List of one or several places."""
    return [places] if isinstance(places, str) else list(places)


def find(places: Places) -> Found:
    """Finds videos.

    Args:
        places: folders, bucket prefixes, patterns or files; a video found twice counts once.

    Raises:
        ValueError: a place is missing or has no video, or two videos have the same stem.
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
                    f"{place}: {names[0]} and {names[1]} have the same stem; tracks are named by it, so rename one"
                )
    return Found(dict(sorted(videos.items(), key=lambda item: item[1].path)), misnamed, sound)


def _find(place: str) -> tuple[list[File], list[str], list[str]]:
    root, rows = _walk(place)
    named = [row for row in rows if _is_utf8(row[0])]
    misnamed = [
        files.join(root, ascii(path)[1:-1]) for path, _, _ in rows if _has_suffix(SUFFIXES, path) and not _is_utf8(path)
    ]
    single = len(rows) == 1 and files.join(root, rows[0][0]) == files.absolute(place)  # a single file may have any name
    videos = [
        File(PurePosixPath(path).stem, path, files.join(root, path), size, version)
        for path, size, version in named
        if single or _has_suffix(SUFFIXES, path)
    ]
    return videos, misnamed, [] if single else [path for path, _, _ in named if _has_suffix(SOUND_SUFFIXES, path)]


def _walk(place: str) -> tuple[str, list[tuple[str, int, str]]]:
    """Folder that paths are relative to, and ``(path, size, version)`` of all files."""
    whole = files.absolute(place)
    system, path = files.resolve(whole)
    if any(mark in place for mark in "*?[") and not system.exists(path):  # a file name may contain these characters
        root = whole[: min(whole.find(mark) for mark in "*?[" if mark in whole)].rpartition("/")[0]
        matching, top = set(system.glob(path)), files.resolve(root)[1].rstrip("/")
        return root, [row for row in files.walk(root) if f"{top}/{row[0]}" in matching]
    if not system.exists(path):
        raise ValueError(f"{place}: no such folder or file; give folders, a bucket prefix or videos with --videos")
    return whole.rpartition("/")[0] if system.isfile(path) else whole, list(files.walk(place))


def _is_utf8(path: str) -> bool:
    return not any("\ud800" <= mark <= "\udfff" for mark in path)


def _has_suffix(suffixes: tuple[str, ...], path: str) -> bool:
    name = PurePosixPath(path)
    return name.suffix.lower() in suffixes and not name.name.startswith(".")
