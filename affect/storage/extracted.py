"""Rows extracted of a clip with how the extraction ended."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import pyarrow as pa

Status = Literal["ok", "degraded", "failed"]


class Part(NamedTuple):
    """A clip whose extraction is under way, as far as it is done: who goes on from it ends with the same rows.

    Args:
        table: rows of the modality's schema.
        last: the last frame, or segment, that is done.
        share: of the clip that is done, in [0, 1].
        counts: what the clip's reason is made of, as the modality counts it; plain JSON.
    """

    table: pa.Table
    last: int
    share: float
    counts: dict[str, Any]


Save = Callable[[Part], None]
"""Hears of every part; it decides which to keep."""


def keep_none(part: Part) -> None:
    """Keep no part."""


class Extracted(NamedTuple):
    """What a modality made of a clip.

    Args:
        table: rows of the modality's schema, perhaps none.
        status: ``ok``, ``degraded`` (less than there should be) or ``failed`` (nothing usable).
        reason: why not ``ok``, or what else has to be known of it; mostly empty.
    """

    table: pa.Table
    status: Status = "ok"
    reason: str = ""
