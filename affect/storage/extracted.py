"""Records of extraction: the finished part of a clip, and the result of a clip with its status."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import pyarrow as pa

Status = Literal["ok", "degraded", "failed"]


class Part(NamedTuple):
    """Finished part of a clip in work; continuing from it gives the same rows as one uninterrupted extraction.

    Args:
        table: rows so far, with the modality's schema.
        last: last finished frame, or segment.
        share: finished share of the clip, in [0, 1].
        counts: the modality's counts for the clip's reason, e.g. of damaged frames; plain JSON.
    """

    table: pa.Table
    last: int
    share: float
    counts: dict[str, Any]


Save = Callable[[Part], None]
"""Callback that receives every finished part; it decides which ones to store."""


def discard_part(part: Part) -> None:
    """Stores no part."""


class Extracted(NamedTuple):
    """Result of extracting one modality from one clip.

    Args:
        table: rows with the modality's schema; may be empty.
        status: ``ok``, ``degraded`` (rows are missing) or ``failed`` (no usable rows).
        reason: why the status is not ``ok``, or a remark on an ``ok`` one; mostly empty.
    """

    table: pa.Table
    status: Status = "ok"
    reason: str = ""
