"""Label files in Aff-Wild2's layout: annotations, splits, and the video and person of each track.

    LABELS/Train_Set/<track>.txt        header "valence,arousal", row k (1-based) = frame k, "-5,-5" = not annotated
    LABELS/Validation_Set/<track>.txt

The value -5 is converted to NaN here and does not appear anywhere else.

Source: description of the valence-arousal track of the ABAW challenges; spec, section 1.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from affect.storage import files

Split = Literal["train", "development", "held_out"]
"""Use of a track: training, selection of epochs and settings, or final evaluation only."""
FOLDERS: dict[Split, str] = {"train": "Train_Set", "development": "Validation_Set"}
HEADER = "valence,arousal"
NOT_ANNOTATED = -5.0
MAX_FAULTS = 20
"""Largest number of faults of a label folder in one message."""
MAX_UNEVEN, MAX_UNEVEN_SHARE, MAX_UNEVEN_FACTOR = 100, 0.01, 1.5
"""Tolerated difference between label rows and video frames: as a number, as a share, and as a factor."""

Person = Literal["main", "left", "right"]
_SIDES: tuple[Person, ...] = ("left", "right")


class LabelError(ValueError):
    """An invalid label file; the message has the file, the row and the value."""


def parse_annotation(text: str, name: str) -> Float[ndarray, "frames 2"]:
    """Reads one annotation file.

    Args:
        text: content of the file.
        name: path of the file, for messages.

    Returns:
        Valence and arousal per frame in [-1, 1], NaN for frames without annotation.

    Raises:
        LabelError: wrong header, a row that is not two numbers, or a value outside [-1, 1] that is not -5.
    """
    header, *rows = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    if header.strip() != HEADER:
        raise LabelError(f'{name}: the first line is "{header[:60]}", it has to be "{HEADER}"')
    if not rows:
        raise LabelError(f"{name}: it has a header and no rows; every frame needs a row")
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
    """Reads every ``<track>.txt`` in a folder; annotations by track name.

    Raises:
        LabelError: there is no such file, or some are invalid; the message lists them.
    """
    found, faults = _read_folder(uri)
    _check_faults(faults)
    return found


def _read_folder(uri: str) -> tuple[dict[str, Float[ndarray, "frames 2"]], list[str]]:
    """Annotations of the valid files, and the faults of the others."""
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


def has_development(labels: str) -> bool:
    """Whether a folder of labels has a development set."""
    return files.exists(files.join(labels, FOLDERS["development"]))


def read_splits(labels: str) -> dict[Split, dict[str, Float[ndarray, "frames 2"]]]:
    """Reads the annotations of the training and the development tracks.

    Raises:
        LabelError: a split is missing or invalid, or a track is in both.
    """
    if not has_development(labels):
        raise LabelError(
            f"{labels}: no such folder, or no {FOLDERS['development']} in it to select epochs on: put the labels of "
            "some people there, or cross-validate on the training videos: train.py --cross-validate 5, or the number "
            "of videos to leave one out at a time"
        )
    read = {split: _read_folder(files.join(labels, folder)) for split, folder in FOLDERS.items()}
    splits = {split: found for split, (found, _) in read.items()}
    both = sorted(splits["train"].keys() & splits["development"].keys())
    faults = [fault for _, of_split in read.values() for fault in of_split]
    _check_faults(faults + [f"{labels}: track {name} is in Train_Set and in Validation_Set" for name in both])
    return splits


def read_training(labels: str) -> dict[Split, dict[str, Float[ndarray, "frames 2"]]]:
    """Reads the annotations of a folder without a development set, from ``Train_Set`` or the folder itself.

    Raises:
        LabelError: there are no annotations, or some are invalid.
    """
    subfolder = files.join(labels, FOLDERS["train"])
    return {"train": read_folder(subfolder if files.exists(subfolder) else labels)}


def check_length(name: str, num_rows: int, num_frames: int, duration_s: float) -> str:
    """Checks that a track has about as many label rows as frames; in Aff-Wild2, rows minus frames is +2 to -49.

    Args:
        name: name of the track.
        num_rows: rows of its annotation.
        num_frames: frames of its video.
        duration_s: length of its video in seconds.

    Returns:
        A warning if they differ by more than 1 % or by more than 100 rows; empty otherwise.

    Raises:
        LabelError: they differ by more than 1 % and by more than 100 rows, or by a factor of 1.5 or more.
    """
    difference = abs(num_rows - num_frames)
    if difference <= min(MAX_UNEVEN, MAX_UNEVEN_SHARE * num_frames):
        return ""
    message = f"track {name}: {num_rows:,} label rows, but its video has {num_frames:,} frames"
    factor = max(num_rows, num_frames) / max(1, min(num_rows, num_frames))
    if factor < MAX_UNEVEN_FACTOR and difference <= max(MAX_UNEVEN, MAX_UNEVEN_SHARE * num_frames):
        return message
    rate = num_rows / duration_s
    if factor >= MAX_UNEVEN_FACTOR:
        message += f", as many rows as seconds x {rate:.3g}: are these {rate:.3g} ratings a second, not one a frame?"
    raise LabelError(f"{message}; an annotation needs one row per frame")


def track_names(splits: Mapping[Split, Mapping[str, ndarray]]) -> list[str]:
    """Names of all annotated tracks of the splits from :func:`read_splits`."""
    return [name for split in splits.values() for name in split]


def video_of(track: str, videos: Collection[str]) -> str:
    """Video of a track: the one with the track's name, else with the name without ``_left`` or ``_right``.

    Args:
        track: name of the track.
        videos: stems of all videos.

    Raises:
        LabelError: there is no such video.

    Source: spec, section 1.
    """
    if track in videos:
        return track
    for side in _SIDES:
        if track.endswith(f"_{side}") and (video := track.removesuffix(f"_{side}")) in videos:
            return video
    raise LabelError(f"track {track} has no video: there is neither {track} nor a name without _left or _right")


def person_of(track: str, video: str, tracks: Iterable[str], videos: Collection[str]) -> Person:
    """Person of its video that a track shows.

    A name that ends in ``_left`` or ``_right`` is that person. A bare name is the other person if the video has one
    such track, and the main person otherwise.

    Args:
        track: name of the track.
        video: video of the track, from :func:`video_of`.
        tracks: names of all known tracks.
        videos: stems of all videos; a track with a video of the same name is not a side of another video.

    Source: spec, section 3, item 1.
    """
    for side in _SIDES:
        if track == f"{video}_{side}":
            return side
    known = set(tracks) - set(videos)
    taken = [side for side in _SIDES if f"{video}_{side}" in known]
    if len(taken) == 1:
        return "right" if taken == ["left"] else "left"
    return "main"
