"""Aff-Wild2's own layout: annotation files, splits, and which person of which video a track is.

    LABELS/Train_Set/<track>.txt        header "valence,arousal", row k (1-based) = frame k, "-5,-5" = not annotated
    LABELS/Validation_Set/<track>.txt

-5 becomes NaN at this door and appears nowhere inside the program.

Source: the ABAW challenges' description of the valence-arousal track.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from affect.storage import files

Split = Literal["train", "development", "held_out"]
"""What a track is for: to learn from, to select on, or to judge what nothing was learned from or selected on."""
FOLDERS: dict[Split, str] = {"train": "Train_Set", "development": "Validation_Set"}
HEADER = "valence,arousal"
NOT_ANNOTATED = -5.0
MAX_FAULTS = 20
"""Faults of a label folder that are named."""
MAX_UNEVEN, MAX_UNEVEN_SHARE, MAX_UNEVEN_FACTOR = 100, 0.01, 1.5
"""Rows that an annotation may have more or fewer than its video has frames, as a number, a share and a factor."""

Person = Literal["main", "left", "right"]
_SIDES: tuple[Person, ...] = ("left", "right")


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
        LabelError: there is no such file, or some cannot be read, each of which is named.
    """
    found, faults = _read_folder(uri)
    _check_faults(faults)
    return found


def _read_folder(uri: str) -> tuple[dict[str, Float[ndarray, "frames 2"]], list[str]]:
    """Annotations that can be read, and what is wrong with the others."""
    names = [name for name, _, _ in files.walk(uri) if name.endswith(".txt") and "/" not in name and name[0] != "."]
    if not names:
        return {}, [f"{uri}: no such folder, or no <track>.txt annotation in it; give one with --labels"]
    found, faults = {}, []
    for name in names:
        path = files.join(uri, name)
        try:
            found[name.removesuffix(".txt")] = parse_annotation(files.read_text(path), path)
        except ValueError as error:
            faults.append(str(error))
    return found, faults


def _check_faults(faults: Sequence[str]) -> None:
    if len(faults) == 1:
        raise LabelError(faults[0])
    if faults:
        more = [f"and {len(faults) - MAX_FAULTS} more"] * (len(faults) > MAX_FAULTS)
        raise LabelError("\n  ".join([f"{len(faults)} faults in the labels:", *faults[:MAX_FAULTS], *more]))


def read_splits(labels: str) -> dict[Split, dict[str, Float[ndarray, "frames 2"]]]:
    """Annotations of the training and the development tracks.

    Raises:
        LabelError: a split is missing or unreadable, or a track stands in both.
    """
    if not files.exists(files.join(labels, FOLDERS["development"])):
        raise LabelError(
            f"{labels}: no such folder, or no {FOLDERS['development']} in it to select epochs on: put the labels of "
            "some people there, or let folds of the training videos do it: train.py --cross-validate 5, or as many as "
            "there are videos, which leaves one out at a time"
        )
    read = {split: _read_folder(files.join(labels, folder)) for split, folder in FOLDERS.items()}
    splits = {split: found for split, (found, _) in read.items()}
    both = sorted(splits["train"].keys() & splits["development"].keys())
    faults = [fault for _, of_split in read.values() for fault in of_split]
    _check_faults(faults + [f"{labels}: track {name} is in Train_Set and in Validation_Set" for name in both])
    return splits


def read_training(labels: str) -> dict[Split, dict[str, Float[ndarray, "frames 2"]]]:
    """Annotations of a folder without a development set: those of ``Train_Set``, or of the folder itself.

    Raises:
        LabelError: there is none, or one that cannot be read.
    """
    own = files.join(labels, FOLDERS["train"])
    return {"train": read_folder(own if files.exists(own) else labels)}


def annotated_tracks(labels: str) -> list[str]:
    """Names of all annotated tracks of a folder, with a development set or without.

    Raises:
        LabelError: there is none, or one that cannot be read.
    """
    whole = files.exists(files.join(labels, FOLDERS["development"]))
    return track_names(read_splits(labels) if whole else read_training(labels))


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
