"""What a search may change: choices or ranges by the dotted path of a setting, each with its source."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from affect import files
from affect.config import Run, System, setting, with_settings


@dataclass(frozen=True)
class Range:
    """Numbers between two, drawn evenly on a logarithmic scale.

    Args:
        low: smallest, > 0.
        high: largest.
    """

    low: float
    high: float


Space = Mapping[str, tuple[Any, ...] | Range]
"""Choices or a range by dotted path."""

_FIT = {"dropout": (0.1, 0.2), "heads": (4, 8, 16), "hidden": (128, 256), "layers": (3, 5)}
_WINDOWS = {"window_frames": (300, 400), "window_hop_frames": (150, 200), "fit.learning_rate": (5e-5, 1e-4)}

SPACES: dict[System, Space] = {
    # the authors' grid for their Transformers
    "face": {f"face_transformer.{name}": choices for name, choices in (_FIT | _WINDOWS).items()},
    "dcmmoe": {f"dcmmoe.{name}": choices for name, choices in (_FIT | _WINDOWS).items()},
    # the authors' grid for their Mamba
    "behavior": {
        "mamba.layers": (8, 10, 12),
        "mamba.hidden": (128, 256, 384),
        "mamba.kernel": (5, 6, 7),
        "mamba.dropout": (0.1, 0.2),
        "mamba.fit.weight_decay": (1e-4, 1e-3),
        "mamba.fit.learning_rate": Range(3e-4, 5e-4),
    },
    # around the paper's values; the paper searches none of these
    "audio": {
        "wavlm.fit.learning_rate": Range(5e-5, 5e-4),
        "wavlm.backbone_learning_rate": Range(1e-6, 2e-5),
        "wavlm.dropout": (0.1, 0.2, 0.3),
    },
    # what the paper names of RAAV, and what is ours in it
    "raav": {
        "raav.latents": (2, 4, 8),
        "raav.layers": (1, 2),
        "raav.positions": (False, True),
        "raav.face_prior": (0.5, 0.7, 0.85),
        "raav.smooth_valence_frames": (5, 9, 15),
        "raav.smooth_arousal_frames": (5, 11, 17),
        "raav.modality_dropout": (0.0, 0.3),
        "raav.fit.learning_rate": Range(2e-5, 2e-4),
    },
}
"""What is searched of each system unless flags say otherwise."""

DEMO_SPACES: dict[System, Space] = {
    "face": {"face_transformer.hidden": (32, 64), "face_transformer.layers": (1, 2)},
    "behavior": {"mamba.hidden": (32, 64), "mamba.layers": (1, 2), "mamba.fit.learning_rate": Range(5e-4, 5e-3)},
    "audio": {"wavlm.dropout": (0.0, 0.2), "wavlm.fit.learning_rate": Range(5e-4, 5e-3)},
    "dcmmoe": {
        "dcmmoe.hidden": (16, 32),
        "dcmmoe.layers": (1, 2),
        "dcmmoe.heads": (2, 4),
        "dcmmoe.dropout": (0.0, 0.1, 0.2),
        "dcmmoe.fit.learning_rate": Range(3e-4, 5e-3),
    },
    "raav": {
        "raav.hidden": (32, 64),
        "raav.latents": (2, 4, 8),
        "raav.layers": (1, 2),
        "raav.dropout": (0.0, 0.1, 0.2),
        "raav.fit.learning_rate": Range(3e-4, 5e-3),
    },
}
"""The same of the demo: small enough for two cores."""


def parse(texts: Sequence[str]) -> Space:
    """A space from words such as ``dcmmoe.hidden=16,32`` and ``dcmmoe.fit.learning_rate=1e-4..1e-3``.

    Raises:
        ValueError: a word is of another form, or names a path twice.
    """
    space: dict[str, tuple[Any, ...] | Range] = {}
    for text in texts:
        path, equals, values = text.partition("=")
        path = path.replace("-", "_")
        if not equals or not values:
            raise ValueError(f"{text}: write PATH=VALUE,VALUE or PATH=LOW..HIGH, as dcmmoe.hidden=16,32")
        if path in space:
            raise ValueError(f"{path} is named twice")
        low, dots, high = values.partition("..")
        try:
            space[path] = Range(float(low), float(high)) if dots else tuple(map(_plain, values.split(",")))
        except ValueError as error:
            raise ValueError(f"{text}: LOW..HIGH have to be numbers") from error
    return space


def _plain(text: str) -> Any:  # noqa: ANN401 -- a number, a truth value or a word
    try:
        return json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        return text


def best(path: str, run: Run) -> Run:
    """A run with what a search found.

    Args:
        path: ``best.json`` of a search, as jobs/tune.py writes it.
        run: of the recipe that was searched.

    Raises:
        ValueError: the file is none, or of another recipe.
    """
    try:
        note = json.loads(files.read(path))
        recipe, name, systems, settings = (note[key] for key in ("recipe", "name", "systems", "settings"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no best.json of jobs/tune.py: {error}") from error
    if recipe != run.name:
        raise ValueError(f"{path} is of recipe {recipe}, not of {run.name}")
    return with_settings(run, {**settings, "name": name, "systems": systems})


def check(space: Space, run: Run) -> Space:
    """See that every value can be, before anything starts; the run's own value is always a choice.

    Args:
        space: what is to be searched.
        run: whose settings it changes; its own values are the first trial.

    Returns:
        The space with the run's own values among its choices.

    Raises:
        ValueError: the space is empty, a path is no setting, a value is out of its range or of another kind, a range is
            none or leaves the run's own value out.
    """
    if not space:
        raise ValueError("the space is empty: there is nothing to search")
    checked: dict[str, tuple[Any, ...] | Range] = {}
    for path, values in space.items():
        own = setting(run, path)
        if isinstance(values, Range):
            if not 0 < values.low < values.high:
                raise ValueError(f"{path}: {values.low:g}..{values.high:g} is no range of numbers above 0")
            if not isinstance(own, float) or not values.low <= own <= values.high:
                raise ValueError(f"{path}: {values.low:g}..{values.high:g} leaves out {own}, the first trial's value")
            ends: tuple[Any, ...] = (values.low, values.high)
            checked[path] = values
        else:
            ends = values
            checked[path] = values if own in values else (own, *values)
        for value in ends:
            with_settings(run, {path: value})
    return checked
