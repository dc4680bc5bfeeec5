"""Aff-Wild2's own layout: annotation files, splits, and which person of which video a track is.

    LABELS/Train_Set/<track>.txt        header "valence,arousal", row k (1-based) = frame k, "-5,-5" = not annotated
    LABELS/Validation_Set/<track>.txt

-5 becomes NaN at this door and appears nowhere inside the program.

Source: the ABAW challenges' description of the valence-arousal track.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from affect import files

Split = Literal["train", "development", "held_out"]
"""What a track is for: to learn from, to select on, or to judge what nothing was learned from or selected on."""
FOLDERS: dict[Split, str] = {"train": "Train_Set", "development": "Validation_Set"}
HEADER = "valence,arousal"
NOT_ANNOTATED = -5.0
MAX_UNEVEN, MAX_UNEVEN_SHARE, MAX_UNEVEN_FACTOR = 100, 0.01, 1.5
"""Rows that an annotation may have more or fewer than its video has frames, as a number, a share and a factor."""

Person = Literal["main", "left", "right"]
_SIDES: tuple[Person, ...] = ("left", "right")
VIDEO_SUFFIXES = tuple(".mp4 .m4v .mov .3gp .mkv .webm .avi .ts .mts .mpg .mpeg .wmv .flv .gif .ogv".split())


class LabelError(ValueError):
    """A label file that cannot be read as what it should be; the message names file, row and value."""


def parse_annotation(text: str, name: str) -> Float[ndarray, "frames 2"]:
    """Read one annotation file.

    Args:
        text: content of the file.
        name: its path, for messages.

    Returns:
        Valence and arousal per frame in [-1, 1], NaN where a frame is not annotated.

    Raises:
        LabelError: wrong header, a row that is not two numbers, or a value outside [-1, 1] that is not -5.
    """
    header, *rows = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    if header.strip() != HEADER:
        raise LabelError(f'{name}: the first line is "{header[:60]}", it has to be "{HEADER}"')
    if not rows:
        raise LabelError(f"{name}: it has a header and no rows, a row is a frame")
    values = np.empty((len(rows), 2))
    for number, row in enumerate(rows, start=1):
        try:
            valence, arousal = row.split(",")
            values[number - 1] = float(valence), float(arousal)
        except ValueError:
            raise LabelError(f'{name}: row {number} is "{row[:60]}", it has to be two numbers') from None
    missing = (values == NOT_ANNOTATED).any(axis=1)
    wrong = ~((np.abs(values) <= 1) | (values == NOT_ANNOTATED)).all(axis=1)
    if wrong.any():
        number = int(wrong.argmax())
        raise LabelError(f"{name}: row {number + 1} is {values[number].tolist()}, values lie in [-1, 1] or are -5")
    values[missing] = np.nan
    return values


def read_folder(uri: str) -> dict[str, Float[ndarray, "frames 2"]]:
    """Annotations of every ``<track>.txt`` in a folder, by track name.

    Raises:
        LabelError: there is no such file, or one that cannot be read.
    """
    names = [name for name, _, _ in files.walk(uri) if name.endswith(".txt") and "/" not in name and name[0] != "."]
    if not names:
        raise LabelError(f"{uri}: no such folder, or no <track>.txt annotation in it; give one with --labels")
    return {name.removesuffix(".txt"): _read_annotation(files.join(uri, name)) for name in names}


def _read_annotation(uri: str) -> Float[ndarray, "frames 2"]:
    try:
        return parse_annotation(files.read_text(uri), uri)
    except ValueError as error:
        raise LabelError(str(error)) from error


def read_splits(labels: str) -> dict[Split, dict[str, Float[ndarray, "frames 2"]]]:
    """Annotations of the training and the development tracks.

    Raises:
        LabelError: a split is missing or unreadable, or a track stands in both.
    """
    splits = {split: read_folder(files.join(labels, folder)) for split, folder in FOLDERS.items()}
    both = sorted(splits["train"].keys() & splits["development"].keys())
    if both:
        raise LabelError(f"{labels}: track {both[0]} is in Train_Set and in Validation_Set")
    return splits


def check_length(name: str, num_rows: int, num_frames: int, duration_s: float) -> str:
    """See that annotation and video belong together: the real corpus has 2 rows more to 49 fewer than frames.

    Args:
        name: of the track.
        num_rows: rows of its annotation.
        num_frames: frames of its video.
        duration_s: length of its video.

    Returns:
        A warning if they differ by more than 1 % or 100; nothing otherwise.

    Raises:
        LabelError: they differ by more than both, or one is half as many again as the other.
    """
    more = abs(num_rows - num_frames)
    if more <= min(MAX_UNEVEN, MAX_UNEVEN_SHARE * num_frames):
        return ""
    said = f"track {name}: {num_rows:,} label rows, but its video has {num_frames:,} frames"
    factor = max(num_rows, num_frames) / max(1, min(num_rows, num_frames))
    if factor < MAX_UNEVEN_FACTOR and more <= max(MAX_UNEVEN, MAX_UNEVEN_SHARE * num_frames):
        return said
    rate = num_rows / duration_s
    if factor >= MAX_UNEVEN_FACTOR:
        said += f", as many rows as seconds x {rate:.3g}: are these {rate:.3g} ratings a second, not one a frame?"
    raise LabelError(f"{said}; an annotation has a row for every frame")


def track_names(splits: Mapping[Split, Mapping[str, ndarray]]) -> list[str]:
    """Names of all annotated tracks, from :func:`read_splits`."""
    return [name for split in splits.values() for name in split]


def list_videos(uri: str) -> dict[str, str]:
    """Videos below a folder or bucket, those that a pattern such as ``talks/*.mp4`` means, or one: path by stem.

    Paths are relative to :func:`videos_root`.

    Raises:
        ValueError: the place is missing, has no video, or has two of one stem.
    """
    found: dict[str, str] = {}
    for name, _, _ in walk_videos(uri):
        stem = PurePosixPath(name).stem
        if stem in found:
            raise ValueError(f"{uri}: {found[stem]} and {name} have the same stem, tracks could not tell them apart")
        found[stem] = name
    if not found:
        misnamed = misnamed_videos(uri)
        looked = f"{misnamed[0]} is no UTF-8: rename it" if misnamed else f"looked for {', '.join(VIDEO_SUFFIXES)}"
        raise ValueError(f"{uri}: no video in it ({looked})")
    return found


def walk_videos(uri: str) -> list[tuple[str, int, str]]:
    """The same as ``(path, bytes, version)``, as :func:`affect.files.walk` has them.

    Raises:
        ValueError: the place is missing.
    """
    return [row for row in _walk(uri) if _can_be_written(row[0])]


def misnamed_videos(uri: str) -> list[str]:
    """Videos whose names are not UTF-8, so that no table can hold them: as they can be printed.

    Raises:
        ValueError: the place is missing.
    """
    return [] if "://" in uri else [ascii(name)[1:-1] for name, _, _ in _walk(uri) if not _can_be_written(name)]


def _walk(uri: str) -> list[tuple[str, int, str]]:
    if _is_pattern(uri):
        system, pattern = files.resolve(files.absolute(uri))
        root, found = videos_root(uri), set(system.glob(pattern))
        top = files.resolve(root)[1].rstrip("/")
        listed = [row for row in files.walk(root) if f"{top}/{row[0]}" in found]
    else:
        system, path = files.resolve(files.absolute(uri))
        if not system.exists(path):
            raise ValueError(f"{uri}: no such folder or file; give a folder, a bucket prefix or a video with --videos")
        listed = list(files.walk(uri))
        if system.isfile(path):
            return listed
    return [row for row in listed if _is_video(row[0])]


def _is_video(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def _can_be_written(name: str) -> bool:
    return not any("\ud800" <= mark <= "\udfff" for mark in name)


def videos_root(uri: str) -> str:
    """The folder that the paths of :func:`list_videos` are relative to."""
    place = files.absolute(uri)
    if _is_pattern(uri):
        return place[: min(place.find(mark) for mark in "*?[" if mark in place)].rpartition("/")[0]
    system, path = files.resolve(place)
    return place.rpartition("/")[0] if system.isfile(path) else place


def _is_pattern(uri: str) -> bool:
    """Whether it is one, and no file or folder that is called so."""
    return any(mark in uri for mark in "*?[") and not files.exists(uri)


def video_of(track: str, videos: Collection[str]) -> str:
    """The video of a track: of the same name if there is one, else of the name without ``_left`` / ``_right``.

    Raises:
        LabelError: there is neither.
    """
    if track in videos:
        return track
    for side in _SIDES:
        if track.endswith(f"_{side}") and (video := track.removesuffix(f"_{side}")) in videos:
            return video
    raise LabelError(f"track {track} has no video: there is neither {track} nor a name without _left or _right")


def person_of(track: str, video: str, tracks: Iterable[str], videos: Collection[str]) -> Person:
    """Which person of its video a track is.

    ``_left`` and ``_right`` say so; a bare name with such a sibling is the other one; a bare name without is the main
    person.

    Args:
        track: name of the track.
        video: its video, from :func:`video_of`.
        tracks: names of all known tracks.
        videos: stems of all videos; a name that has a video of its own is no side of another's.
    """
    for side in _SIDES:
        if track == f"{video}_{side}":
            return side
    known = set(tracks) - set(videos)
    taken = [side for side in _SIDES if f"{video}_{side}" in known]
    if len(taken) == 1:
        return "right" if taken == ["left"] else "left"
    return "main"
