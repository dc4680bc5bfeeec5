"""Features that a job reads or extracts: person prompts of each video, and the address of each kind of feature."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from affect.corpus import affwild2
from affect.modalities import KINDS, MODALITIES
from affect.settings.run import Run

DESCRIPTION = "description"
"""Kind of the text descriptions, which are extracted only with ``--describe``."""


def feature_addresses(run: Run) -> dict[str, str]:
    """Address of each extracted modality's features: a hash of everything that affects their values.

    Raises:
        WeightsError: weights that a setting names are not available.
    """
    return {m: MODALITIES[m].address(run) for m in run.extracted}


class Wanted(NamedTuple):
    """Features that a job reads or extracts from a folder of videos.

    Args:
        prompts: person prompts of the behaviour, by stem.
        where: address by kind.
    """

    prompts: dict[str, tuple[str, ...]]
    where: dict[str, str]


def wanted_features(run: Run, found: Collection[str], tracks: Iterable[str], *, describe: bool = False) -> Wanted:
    """Features that a run needs; commands with the same run, videos and labels get the same objects.

    Args:
        run: the run.
        found: stems of the videos.
        tracks: names of known tracks; suffixes ``_left`` and ``_right`` add person prompts.
        describe: whether text descriptions are included.

    Raises:
        WeightsError: weights that a setting names are not available.
    """
    prompts = prompts_of(found, tracks, run.behavior.ask)
    where = feature_addresses(run)
    if describe:
        where[DESCRIPTION] = KINDS[DESCRIPTION].address(run)
    return Wanted(prompts, where)


def prompts_of(stems: Iterable[str], tracks: Iterable[str], always: Iterable[str] = ()) -> dict[str, tuple[str, ...]]:
    """Person prompts of each video: ``neutral``, ``always``, and the people in track names."""
    known = list(tracks)
    videos = set(stems)
    people = {stem: {"neutral", *always} for stem in videos}
    for track in known:
        try:
            stem = affwild2.video_of(track, videos)
        except affwild2.LabelError:
            continue  # a label without a video
        person = affwild2.person_of(track, stem, known, videos)
        if person != "main":
            people[stem].add(person)
    order = ("neutral", "left", "right")
    return {stem: tuple(p for p in order if p in names) for stem, names in people.items()}
