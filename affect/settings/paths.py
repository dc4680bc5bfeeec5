"""Settings by dotted path, and settings from plain JSON."""

import dataclasses
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, cast, get_args, get_origin, get_type_hints


def from_plain(kind: type, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- an instance of the class
    """Settings from the output of ``dataclasses.asdict``, also after a JSON round trip.

    Args:
        kind: settings class.
        values: by field name; missing fields get their default.

    Raises:
        ValueError: a value is out of range or belongs to no field.
    """
    types = {name: hint for name, hint in get_type_hints(kind).items() if get_origin(hint) is not ClassVar}
    if unknown := sorted(values.keys() - types.keys()):
        raise ValueError(f"{kind.__name__} has no setting {', '.join(unknown)}")
    made: dict[str, Any] = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(types[name]):
            value = from_plain(cast(type, types[name]), value)
        made[name] = tuple(value) if isinstance(value, list) else value
    return kind(**made)


def setting(owner: Any, path: str) -> Any:  # noqa: ANN401 -- a dataclass of settings; any value
    """Value of a setting by its dotted path, such as ``dcmmoe.fit.learning_rate``.

    Raises:
        ValueError: there is no such setting.
    """
    value = owner
    for name in path.split("."):
        if not dataclasses.is_dataclass(value) or name not in {f.name for f in dataclasses.fields(value)}:
            raise ValueError(f"{path}: {type(value).__name__} has no setting {name}")
        value = getattr(value, name)
    return value


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:  # noqa: ANN401 -- a dataclass, or what JSON makes of one
    """Flat mapping of settings, by dotted path.

    Args:
        settings: a dataclass, or a mapping with the same names.
        prefix: path to prepend; empty for none.
    """
    parts = settings
    if dataclasses.is_dataclass(settings):
        parts = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    if not isinstance(parts, Mapping):
        return {prefix: settings}
    dot = "." if prefix else ""
    return {p: v for name, part in parts.items() for p, v in flat(part, f"{prefix}{dot}{name}").items()}


def with_settings(owner: Any, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- the same dataclass
    """Copy of settings with changed values; constraints between fields are checked after all changes.

    Args:
        owner: a run, or a part of one.
        values: new values by dotted path.

    Raises:
        ValueError: a path is not a setting, or a value is out of range or of the wrong type.
    """
    hints = get_type_hints(type(owner))
    parts: dict[str, dict[str, Any]] = {}
    changes: dict[str, Any] = {}
    for path, value in values.items():
        name, _, rest = path.partition(".")
        setting(owner, path)
        if rest:
            parts.setdefault(name, {})[rest] = value
        else:
            changes[name] = _fitted(hints[name], value, f"{type(owner).__name__}: {name}")
    changes |= {name: with_settings(getattr(owner, name), inner) for name, inner in parts.items()}
    return dataclasses.replace(owner, **changes)


def _fitted(kind: Any, value: Any, name: str) -> Any:  # noqa: ANN401 -- a type, and any value
    """Converts a value to a field's type: lists (JSON) to tuples, integers to floats."""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    for option in options:
        origin = get_origin(option)
        if origin is Literal and value in get_args(option):
            return value
        if origin is tuple and isinstance(value, (list, tuple)):
            return tuple(_fitted(get_args(option)[0], part, name) for part in value)
        if option is float and type(value) in (int, float):
            return float(value)
        if option in (int, str, bool, NoneType) and type(value) is option:
            return value
    raise ValueError(f"{name} cannot be {value!r}, it is {getattr(kind, '__name__', kind)}")
