"""Base class of all settings: field types declare bounds, which are checked on construction."""

import dataclasses
from functools import cache
from operator import ge, gt, le, lt
from types import UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Interval

Positive = Annotated[float, Gt(0)]
"""Above 0."""
NonNegative = Annotated[float, Ge(0)]
"""0 or more."""
Fraction = Annotated[float, Interval(ge=0, lt=1)]
"""In [0, 1)."""
Share = Annotated[float, Interval(ge=0, le=1)]
"""In [0, 1]."""
Inner = Annotated[float, Interval(gt=0, lt=1)]
"""In (0, 1)."""
Count = Annotated[int, Gt(0)]
"""1 or more."""
Number = Annotated[int, Ge(0)]
"""0 or more."""

ADDED = {"added": True}
"""Metadata of a field added after a release: at its default value it does not enter addresses."""

Bound = Gt | Ge | Interval


def unchanged(settings: Any, field: dataclasses.Field) -> bool:  # noqa: ANN401 -- a dataclass
    """Whether a field is marked as :data:`ADDED` and has its default value."""
    if "added" not in field.metadata:
        return False
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return bool(getattr(settings, field.name) == default)


class Settings:
    """Settings that check their values on construction.

    Raises:
        ValueError: a value is out of bounds, or :meth:`check` finds values that contradict each other.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        """Checks every bounded field, then constraints between fields."""
        for name, bound in _bounds(cast(Any, type(self))):
            value = getattr(self, name)
            if value is not None and not _holds(value, bound):
                self.require(False, f"{name} is {value}, it has to be {_words(bound)}")
        self.check()

    def check(self) -> None:
        """Checks constraints between fields; subclasses override it."""

    def require(self, condition: bool, message: str) -> None:
        """Raises an error that names the settings class if the condition is false."""
        if not condition:
            raise ValueError(f"{type(self).__name__}: {message}")


@cache
def _bounds(kind: type) -> list[tuple[str, Bound]]:
    """Bounded fields of a settings class; for an optional field, the bound of its non-None type."""
    found = []
    for name, hint in get_type_hints(kind, include_extras=True).items():
        options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        marks = [mark for option in options for mark in getattr(option, "__metadata__", ())]
        found += [(name, mark) for mark in marks if isinstance(mark, Bound)]
    return found


def _holds(value: Any, bound: Bound) -> bool:  # noqa: ANN401 -- a number
    limits = {compare: getattr(bound, compare.__name__, None) for compare in (gt, ge, lt, le)}
    return all(limit is None or compare(value, limit) for compare, limit in limits.items())


def _words(bound: Bound) -> str:
    """Text of a bound for error messages."""
    match bound:
        case Gt():
            return f"> {bound.gt}"
        case Ge():
            return f">= {bound.ge}"
    low = f"({bound.gt}" if bound.ge is None else f"[{bound.ge}"
    return f"in {low}, {bound.lt})" if bound.le is None else f"in {low}, {bound.le}]"
