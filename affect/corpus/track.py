"""One person in one video, as arrays: what models are trained on and predict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float16, Int, Int16
from numpy import ndarray

from affect import timeline
from affect.settings.names import Modality

FULL_SCALE = 32768.0
"""Of waveforms' 16-bit samples."""


@dataclass(frozen=True)
class Series:
    """What a unimodal model says of every frame: an input of DCMMOE, and RAAV's frames.

    Args:
        embedding: finite everywhere.
        prediction: valence and arousal, finite everywhere.
        valid: whether the modality saw the person at this frame; the rest is filled and not to be trusted.
    """

    embedding: Float[ndarray, "frames D"]
    prediction: Float[ndarray, "frames 2"]
    valid: Bool[ndarray, " frames"]


@dataclass(frozen=True)
class Blocks:
    """What the audio model says of every block of every segment: RAAV's audio tokens.

    Args:
        embedding: per block.
        prediction: per block.
        valid: whether the block has frames and its segment was kept.
    """

    embedding: Float[ndarray, "segments K D"]
    prediction: Float[ndarray, "segments K 2"]
    valid: Bool[ndarray, "segments K"]


@dataclass(frozen=True)
class Patches:
    """Vision-language states of the temporal patches of segments, of about half a second each, segment after segment.

    Args:
        states: mean state of each patch.
        ranges: frames ``[f0, f1)`` that it stands for; none where the labels end before it.
        segment: number of its segment.
    """

    states: Float[ndarray, "patches D"]
    ranges: Int[ndarray, "patches 2"]
    segment: Int[ndarray, " patches"]

    @staticmethod
    def none() -> "Patches":
        """Those of a track without behaviour."""
        nothing = np.zeros((0, 0), dtype=np.float32)
        return Patches(nothing, np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class Segments:
    """A track's segments with what behaviour and audio extracted of them.

    Args:
        start_s: start.
        end_s: end.
        ranges: frames ``[f0, f1)``.
        full: whether a segment has its full length.
        block_edges: frame edges of the one-second blocks.
        behavior_valid: whether there are states.
        multimodal: state of the last token, 0 where there is none.
        vision: state at the last vision end, 0 where there is none.
        patches: states of half seconds, of segments that have any.
        audio_valid: whether there is sound: a waveform that is not silence.
        kept: the mouth filter's verdict.
        verdict: why a segment was not kept.
        waveforms: mono, true length, empty where there is none; may be read from the disk when it is asked for.
    """

    start_s: Float[ndarray, " segments"]
    end_s: Float[ndarray, " segments"]
    ranges: Int[ndarray, "segments 2"]
    full: Bool[ndarray, " segments"]
    block_edges: Int[ndarray, "segments edges"]
    behavior_valid: Bool[ndarray, " segments"]
    multimodal: Float[ndarray, "segments D"]
    vision: Float[ndarray, "segments D"]
    patches: Patches
    audio_valid: Bool[ndarray, " segments"]
    kept: Bool[ndarray, " segments"]
    verdict: list[str]
    waveforms: Sequence[Int16[ndarray, " _"]]


@dataclass(frozen=True)
class Heard:
    """What the frozen layers of the audio's model say of a segment.

    Args:
        num_samples: true length of its waveform; 0 where there is none.
        states: one per step of the padded waveform.
    """

    num_samples: int
    states: Float16[ndarray, "S D"]


@dataclass(frozen=True)
class Track:
    """One person in one video.

    Args:
        name: as label files have it.
        video: stem of the video.
        person: main, left, right or a number from the left.
        time_s: presentation time of every frame.
        gold: annotations, NaN where there is none.
        face_valid: whether the person's face was found.
        face_embedding: GRADA's; at a frame without a face the nearest one's, 0 in a track without any.
        lip_area: inner-lip area, NaN without a mesh.
        segments: the segments.
        series: what trained unimodal models say, by modality.
        blocks: what the trained audio model says of blocks.
        heard: what the audio model's frozen layers say of segments, where training reads that and no waveforms.
    """

    name: str
    video: str
    person: str
    time_s: Float[ndarray, " frames"]
    gold: Float[ndarray, "frames 2"]
    face_valid: Bool[ndarray, " frames"]
    face_embedding: Float[ndarray, "frames D"]
    lip_area: Float[ndarray, " frames"]
    segments: Segments
    series: Mapping[Modality, Series] = field(default_factory=dict)
    blocks: Blocks | None = None
    heard: Sequence[Heard] | None = None

    @property
    def num_frames(self) -> int:
        """Frames of the track."""
        return len(self.time_s)

    @cached_property
    def annotated(self) -> Bool[ndarray, " frames"]:
        """Frames with an annotation."""
        return ~np.isnan(self.gold).any(axis=1)

    @cached_property
    def segment_gold(self) -> Float[ndarray, "segments 2"]:
        """Mean of each segment's annotated frames, NaN where there is none."""
        return timeline.range_means(self.gold, self.segments.ranges)

    @cached_property
    def patch_gold(self) -> Float[ndarray, "patches 2"]:
        """The same of each temporal patch."""
        return timeline.range_means(self.gold, self.segments.patches.ranges)

    @cached_property
    def block_gold(self) -> Float[ndarray, "segments K 2"]:
        """The same of each of a segment's one-second blocks."""
        edges = np.minimum(self.segments.block_edges, self.segments.ranges[:, 1:])
        num, blocks = len(edges), edges.shape[1] - 1
        ranges = np.stack([edges[:, :-1], edges[:, 1:]], axis=2).reshape(-1, 2)
        return timeline.range_means(self.gold, ranges).reshape(num, blocks, 2)
