"""Folds of videos of about equal size."""

from collections.abc import Iterable, Mapping, Sequence


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


def of_same_people(videos: Iterable[tuple[str, str]]) -> list[set[str]]:
    """Groups of videos that show the same people, directly or through other videos.

    Args:
        videos: video and person of every track; tracks of one video belong together, and those of one person.
    """
    groups: list[tuple[set[str], set[str]]] = []
    for video, person in videos:
        joined = ({video}, {person} - {""})
        apart = []
        for group in groups:
            if group[0] & joined[0] or group[1] & joined[1]:
                joined = (group[0] | joined[0], group[1] | joined[1])
            else:
                apart.append(group)
        groups = [*apart, joined]
    return [group[0] for group in groups]


def fold_groups(sizes: Mapping[str, int], groups: Sequence[set[str]], folds: int) -> list[set[str]]:
    """Divides videos into folds as :func:`fold_videos`, groups of videos undivided.

    Raises:
        ValueError: there are fewer groups than folds.
    """
    of = {min(group): group for group in groups}
    parts = fold_videos({name: sum(sizes[video] for video in group) for name, group in of.items()}, folds)
    return [{video for name in part for video in of[name]} for part in parts]
