"""Addresses of features: a hash of everything that changes their numbers."""

from collections.abc import Collection, Iterable
from dataclasses import fields
from typing import Any, NamedTuple

from affect import weights
from affect.corpus import affwild2
from affect.settings.address import address
from affect.settings.extraction import Stage
from affect.settings.names import Kind, Modality
from affect.settings.run import Run
from affect.storage import schema


def feature_addresses(run: Run) -> dict[Modality, str]:
    """Address of each extracted modality's features: everything that changes their numbers.

    Raises:
        WeightsError: weights that a setting names cannot be had.
    """
    settings = {m: getattr(run, m) for m in run.extracted}
    # a folder's path says nothing about its numbers, its content does
    return {m: address(schema.VERSION, m, run.grid, _unnamed(s), _content(m, run)) for m, s in settings.items()}


def description_address(run: Run) -> str:
    """Address of descriptions in words.

    Raises:
        WeightsError: weights that a setting names cannot be had.
    """
    settings = [_unnamed(run.behavior), _unnamed(run.description)]
    return address(schema.VERSION, "description", run.grid, settings, _content("description", run))


class Wanted(NamedTuple):
    """What a job reads or extracts of a folder of videos.

    Args:
        prompts: people that behaviour is asked about, by stem.
        where: address by kind.
    """

    prompts: dict[str, tuple[str, ...]]
    where: dict[Kind, str]


def wanted_features(run: Run, found: Collection[str], tracks: Iterable[str], *, describe: bool = False) -> Wanted:
    """What a run reads of videos: every command that names the same run, videos and labels means the same objects.

    Args:
        run: the run.
        found: stems of the videos.
        tracks: names of known tracks, which decide what behaviour is asked.
        describe: whether descriptions in words are meant, too.

    Raises:
        ValueError: weights that cannot be had.
    """
    prompts = prompts_of(found, tracks, run.behavior.ask)
    where: dict[Kind, str] = dict(feature_addresses(run).items())
    if describe:
        where["description"] = description_address(run)
    return Wanted(prompts, where)


def _content(kind: Kind, run: Run) -> list[str]:
    """What weights and prompts numbers or words come from."""
    if kind == "face":
        names = [run.face.landmarker] + [run.face.yolo_weights] * (run.face.detector == "yolo")
        return [*_encoder(run), *(weights.identity(name) for name in names)]
    if kind in ("behavior", "description"):
        from affect.behavior.prompt import PROMPTS, VERSION

        weight = weights.identity(run.behavior.weights, run.behavior.revision)
        return [weight, f"prompt {VERSION}", *PROMPTS.values()]
    return []


def _encoder(run: Run) -> list[str]:
    """What the frame encoder's numbers come from, if there is one."""
    if not run.face.weights:
        return []
    try:
        return [weights.identity(run.face.weights)]
    except weights.WeightsError as error:
        raise weights.WeightsError(
            f"{error}. GRADA, the frame encoder, has not been published by its authors: train one on labelled pictures "
            "(jobs/train.py grada), name it with --face.weights, or take a recipe that needs none: audio, behavior, "
            "behavior_vision, behavior_dense"
        ) from error


def _unnamed(settings: Stage) -> dict[str, Any]:
    skipped = {f.name for f in fields(Stage)} | {"weights", "revision", "landmarker", "yolo_weights", "ask"}
    return {f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in skipped}


def prompts_of(stems: Iterable[str], tracks: Iterable[str], always: Iterable[str] = ()) -> dict[str, tuple[str, ...]]:
    """People that behaviour is asked about, per video: ``neutral``, who ``always`` is, and whom a label names."""
    known = list(tracks)
    videos = set(stems)
    asked = {stem: {"neutral", *always} for stem in videos}
    for track in known:
        try:
            stem = affwild2.video_of(track, videos)
        except affwild2.LabelError:
            continue  # labels of videos that are not here
        person = affwild2.person_of(track, stem, known, videos)
        if person != "main":
            asked[stem].add(person)
    order = ("neutral", "left", "right")
    return {stem: tuple(p for p in order if p in people) for stem, people in asked.items()}
