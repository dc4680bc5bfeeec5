"""Search spaces: choices or a range for each dotted path of a setting."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from affect.settings.paths import setting, with_settings
from affect.settings.run import Run


@dataclass(frozen=True)
class Range:
    """Range of a float setting, sampled log-uniformly.

    Args:
        low: lower bound, > 0.
        high: upper bound.
    """

    low: float
    high: float


Space = Mapping[str, tuple[Any, ...] | Range]
"""Choices or a range, by dotted path."""


FIXED = {"modalities", "blocks", "cached", "weights", "revision", "fit.max_epochs"}
"""Settings that cannot be searched: they affect more than one system's training, or the length of a trial."""


TRANSFORMER_SPACE: Space = {
    "dropout": (0.1, 0.2),
    "heads": (4, 8, 16),
    "hidden": (128, 256),
    "layers": (3, 5),
    "window_frames": (300, 400),
    "window_hop_frames": (150, 200),
    "fit.learning_rate": (5e-5, 1e-4),
}
"""The authors' grid for their Transformers."""


def under(field: str, space: Space) -> Space:
    """Copy of a space with all paths prefixed by a field of the run."""
    return {f"{field}.{path}": values for path, values in space.items()}


def parse(texts: Sequence[str]) -> Space:
    """Parses a space from flags such as ``dcmmoe.hidden=16,32`` and ``dcmmoe.fit.learning_rate=1e-4..1e-3``.

    Raises:
        ValueError: a text is malformed, or a path is given twice.
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
    """Validates a search space and puts the run's value first among the choices.

    Args:
        space: settings of the run's last system to search.
        run: base settings; its values are the first trial.

    Returns:
        The space with the run's values among its choices.

    Raises:
        ValueError: the space is empty; a path is not a setting of the system, or is in :data:`FIXED`; a value is out of
            range or of the wrong type; a range is invalid or does not contain the run's value.
    """
    if not space:
        raise ValueError(f"the space of {run.systems[-1]} is empty: there is nothing to search")
    return {path: _checked(path, values, run) for path, values in space.items()}


def _checked(path: str, values: tuple[Any, ...] | Range, run: Run) -> tuple[Any, ...] | Range:
    default, system = setting(run, path), run.systems[-1]
    field = run.fields_of_systems()[system]
    fixed = FIXED | set(getattr(run.settings_of(system), "unsearched", ()))
    name = path.removeprefix(f"{field}.")
    if name == path or name in fixed or name.startswith("speaking."):
        raise ValueError(f"{path} cannot be searched of {system}: give settings below {field} that its training reads")
    if isinstance(values, Range):
        if not 0 < values.low < values.high < float("inf"):
            raise ValueError(f"{path}: {values.low:g}..{values.high:g} is no range of numbers above 0")
        if not isinstance(default, float):
            raise ValueError(f"{path} is {default!r}, not a float: list its values, as {path}={default!r},...")
        if not values.low <= default <= values.high:
            raise ValueError(f"{path}: {values.low:g}..{values.high:g} leaves out {default}, the first trial's value")
        for end in (values.low, values.high):
            with_settings(run, {path: end})
        return values
    fitted = [setting(with_settings(run, {path: value}), path) for value in values]
    if any(isinstance(value, float) and not abs(value) < float("inf") for value in fitted):
        raise ValueError(f"{path}: its values have to be finite")
    return tuple(dict.fromkeys([default, *fitted]))
