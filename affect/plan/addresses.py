"""Which features a job means: the people that are asked about in each video, and the address of each kind."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from affect.corpus import affwild2
from affect.modalities import KINDS, MODALITIES
from affect.settings.run import Run

DESCRIPTION = "description"
"""The kind that is extracted where texts are asked for."""


def feature_addresses(run: Run) -> dict[str, str]:
    """Address of each extracted modality's features: a hash of everything that changes their numbers.

    Raises:
        WeightsError: weights that a setting names cannot be had.
    """
    return {m: MODALITIES[m].address(run) for m in run.extracted}


class Wanted(NamedTuple):
    """Features that a job reads or extracts of a folder of videos.

    Args:
        prompts: people that behaviour is asked about, by stem.
        where: address by kind.
    """

    prompts: dict[str, tuple[str, ...]]
    where: dict[str, str]


def wanted_features(run: Run, found: Collection[str], tracks: Iterable[str], *, describe: bool = False) -> Wanted:
    """Features that a run needs of videos: every command with the same run, videos and labels means the same objects.

    Args:
        run: the run.
        found: stems of the videos.
        tracks: names of known tracks, whose ``_left`` and ``_right`` are people to ask about.
        describe: whether descriptions in words are meant, too.

    Raises:
        WeightsError: weights that a setting names cannot be had.
    """
    prompts = prompts_of(found, tracks, run.behavior.ask)
    where = feature_addresses(run)
    if describe:
        where[DESCRIPTION] = KINDS[DESCRIPTION].address(run)
    return Wanted(prompts, where)


def prompts_of(stems: Iterable[str], tracks: Iterable[str], always: Iterable[str] = ()) -> dict[str, tuple[str, ...]]:
    """People that behaviour is asked about, per video: ``neutral``, ``always``, and those that track names mean."""
    known = list(tracks)
    videos = set(stems)
    people = {stem: {"neutral", *always} for stem in videos}
    for track in known:
        try:
            stem = affwild2.video_of(track, videos)
        except affwild2.LabelError:
            continue  # labels of videos that are not here
        person = affwild2.person_of(track, stem, known, videos)
        if person != "main":
            people[stem].add(person)
    order = ("neutral", "left", "right")
    return {stem: tuple(p for p in order if p in own) for stem, own in people.items()}
