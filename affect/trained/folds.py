"""Folds of training videos, and the tracks of each fold."""

from collections.abc import Iterable, Mapping, Sequence

from affect.storage.store import Store
from affect.tracks.tables import TrackRef, load_track

Part = tuple[tuple[str, ...], tuple[str, ...]]
"""Names of the tracks that a model trains on, and of the tracks that score it."""


def fold_videos(sizes: Mapping[str, int], folds: int) -> list[set[str]]:
    """Divides videos into folds with about the same number of frames.

    Args:
        sizes: frames of each video, of all its tracks together: they stay in one fold.
        folds: number of folds, two or more.

    Returns:
        The videos of each fold.

    Raises:
        ValueError: there are fewer videos than folds.
    """
    if folds < 2 or len(sizes) < folds:
        raise ValueError(f"--folds {folds}: there are {len(sizes)} training videos, give 2 to {len(sizes)}")
    parts: list[set[str]] = [set() for _ in range(folds)]
    frames = [0] * folds
    for video in sorted(sizes, key=lambda name: (-sizes[name], name)):
        smallest = frames.index(min(frames))
        parts[smallest].add(video)
        frames[smallest] += sizes[video]
    return parts


def frames_of_videos(refs: Iterable[TrackRef], store: Store) -> dict[str, int]:
    """Number of frames of each training video, of all its tracks together."""
    sizes: dict[str, int] = {}
    for ref in refs:
        if ref.split == "train":
            sizes[ref.video] = sizes.get(ref.video, 0) + load_track(store, ref, ()).num_frames
    return sizes


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
