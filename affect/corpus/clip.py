"""A clip, the unit of extraction work, and what a modality makes of one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from affect import timeline
from affect.config import Grid
from affect.corpus.video import Probe

Status = Literal["ok", "degraded", "failed"]


@dataclass(frozen=True)
class Clip:
    """A time range of a video. It owns the frames in ``[start_s, end_s)`` and the segments that start there.

    Args:
        uri: the video.
        probe: what the video holds.
        start_s: start, a multiple of the segments' hop.
        end_s: end, not part of it.
        grid: the time grid.
        prompts: the people that behaviour is asked about.
    """

    uri: str
    probe: Probe
    start_s: float
    end_s: float
    grid: Grid
    prompts: tuple[str, ...] = ("neutral",)

    @property
    def frames(self) -> tuple[int, int]:
        """Frames ``[first, last)`` that the clip owns."""
        return timeline.clip_frames(self.probe.time_s, self.start_s, self.end_s)

    @property
    def segments(self) -> list[tuple[int, float, float]]:
        """``(number, start_s, end_s)`` of the segments that the clip owns; it may own none."""
        ranges = timeline.segments(self.probe.clock.duration_s, self.grid.segment_s, self.grid.hop_s)
        return [(n, a, b) for n, (a, b) in enumerate(ranges) if self.start_s <= a < self.end_s]


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
