"""Tracks of each fold of training videos."""

from collections.abc import Iterable, Sequence

from affect.learning.folds import fold_groups, of_same_people
from affect.storage.store import Store
from affect.tracks.tables import TrackRef, load_track

Part = tuple[tuple[str, ...], tuple[str, ...]]
"""Names of the tracks that a model trains on, and of the tracks that score it."""


def frames_of_videos(refs: Iterable[TrackRef], store: Store) -> dict[str, int]:
    """Number of frames of each training video, of all its tracks together."""
    sizes: dict[str, int] = {}
    for ref in refs:
        if ref.split == "train":
            sizes[ref.video] = sizes.get(ref.video, 0) + load_track(store, ref, ()).num_frames
    return sizes


def folds_of(refs: Sequence[TrackRef], store: Store, folds: int) -> list[set[str]]:
    """Folds of training videos of about equal length; those of the same people stay together.

    Raises:
        ValueError: there are fewer videos, or groups of people, than folds.
    """
    training = [ref for ref in refs if ref.split == "train"]
    groups = of_same_people((ref.video, ref.shows) for ref in training)
    return fold_groups(frames_of_videos(training, store), groups, folds)


def fold_parts(refs: Iterable[TrackRef], groups: Sequence[set[str]]) -> tuple[Part, ...]:
    """One part per group of training videos: it trains on the other groups and is scored on this one."""
    train = [ref for ref in refs if ref.split == "train"]
    return tuple(
        (
            tuple(ref.name for ref in train if ref.video not in group),
            tuple(ref.name for ref in train if ref.video in group),
        )
        for group in groups
    )


def development_part(refs: Sequence[TrackRef]) -> Part:
    """The part that trains on the training split and is scored on the development split."""
    train, development = (tuple(ref.name for ref in refs if ref.split == split) for split in ("train", "development"))
    return train, development
