"""Probe of a video: its metadata and frame times, without the library that decodes it."""

from dataclasses import dataclass

from jaxtyping import Float
from numpy import ndarray

from affect.timeline import Timestamps


@dataclass(frozen=True)
class Probe:
    """Metadata and frame times of a video.

    Args:
        path: path relative to the folder or bucket of videos.
        bytes: size of the file.
        fingerprint: hash of path, size, first and last MiB.
        content: hash of size, first and last MiB, independent of the name.
        width: width of the upright picture in pixels.
        height: height of the upright picture in pixels.
        rotation: degrees counter-clockwise that turn a decoded frame upright, a multiple of 90.
        has_audio: whether there is an audio stream.
        start_s: container time of the first frame, in seconds.
        time_s: presentation time of every frame in seconds, strictly increasing from 0.
    """

    path: str
    bytes: int
    fingerprint: str
    content: str
    width: int
    height: int
    rotation: int
    has_audio: bool
    start_s: float
    time_s: Float[ndarray, " frames"]

    @property
    def clock(self) -> Timestamps:
        """Frame clock from the video's timestamps."""
        return Timestamps(self.time_s)
