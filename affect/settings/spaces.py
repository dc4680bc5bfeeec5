"""Search spaces: choices or ranges by the dotted path of a setting, each with its source."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from affect.settings.names import FIELDS, System
from affect.settings.paths import setting, with_settings
from affect.settings.run import Run


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


FIXED = {"modalities", "blocks", "cached", "weights", "revision", "fit.max_epochs"}
"""What decides more than a system's training, or how long a trial may be."""


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
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
    except ValueError:
        return text


def check(space: Space, run: Run) -> Space:
    """See that every value can be, before anything starts; the run's own value is always a choice, and the first.

    Args:
        space: what is to be searched of the run's last system.
        run: whose settings it changes; its own values are the first trial.

    Returns:
        The space with the run's own values among its choices.

    Raises:
        ValueError: the space is empty, a path is no setting of the system or one that decides more than its training, a
            value is out of its range or of another kind, a range is none or leaves the run's own value out.
    """
    if not space:
        raise ValueError("the space is empty: there is nothing to search")
    return {path: _checked(path, values, run) for path, values in space.items()}


def _checked(path: str, values: tuple[Any, ...] | Range, run: Run) -> tuple[Any, ...] | Range:
    own, system = setting(run, path), run.systems[-1]
    field = FIELDS[system]
    fixed = FIXED | ({"trained_layers", "fit.precision"} if run.wavlm.cached else set())
    name = path.removeprefix(f"{field}.")
    if name == path or name in fixed or name.startswith("speaking."):
        raise ValueError(f"{path} cannot be searched of {system}: give settings below {field} that its training reads")
    if isinstance(values, Range):
        if not 0 < values.low < values.high < float("inf"):
            raise ValueError(f"{path}: {values.low:g}..{values.high:g} is no range of numbers above 0")
        if not isinstance(own, float):
            raise ValueError(f"{path} is {own!r}, which no range can hold: write its values, as {path}={own!r},...")
        if not values.low <= own <= values.high:
            raise ValueError(f"{path}: {values.low:g}..{values.high:g} leaves out {own}, the first trial's value")
        for end in (values.low, values.high):
            with_settings(run, {path: end})
        return values
    fitted = [setting(with_settings(run, {path: value}), path) for value in values]
    if any(isinstance(value, float) and not abs(value) < float("inf") for value in fitted):
        raise ValueError(f"{path}: its values have to be finite")
    return tuple(dict.fromkeys([own, *fitted]))
