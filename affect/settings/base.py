"""The base of all settings: bounds stand in the types of fields and are checked here."""

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
"""Metadata of a field that came later: at its default, addresses are as before it."""

Bound = Gt | Ge | Interval


class Settings:
    """Settings whose values are checked when they are made.

    Raises:
        ValueError: a value is out of its bounds, or :meth:`check` finds that values contradict each other.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        """Check every bounded field, then what fields ask of each other."""
        for name, bound in _bounds(cast(Any, type(self))):
            value = getattr(self, name)
            if value is not None and not _holds(value, bound):
                self.require(False, f"{name} is {value}, it has to be {_words(bound)}")
        self.check()

    def check(self) -> None:
        """Check what fields ask of each other; subclasses say it."""

    def require(self, condition: bool, message: str) -> None:
        """Raise an error that names the settings unless a condition holds."""
        if not condition:
            raise ValueError(f"{type(self).__name__}: {message}")


@cache
def _bounds(kind: type) -> list[tuple[str, Bound]]:
    """Fields of settings with their bounds; an optional field's bound is that of its value."""
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
    """A bound as an error message has it."""
    match bound:
        case Gt():
            return f"> {bound.gt}"
        case Ge():
            return f">= {bound.ge}"
    low = f"({bound.gt}" if bound.ge is None else f"[{bound.ge}"
    return f"in {low}, {bound.lt})" if bound.le is None else f"in {low}, {bound.le}]"
