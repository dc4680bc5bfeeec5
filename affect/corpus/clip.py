"""A clip: the unit of extraction work."""

from dataclasses import dataclass

from affect import timeline
from affect.corpus.video import Probe
from affect.settings.extraction import Grid


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
