"""A track as arrays: the features, labels and unimodal outputs of one person in one video."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from affect import timeline

FULL_SCALE = 32768.0
"""Full scale of waveforms' 16-bit samples."""


@dataclass(frozen=True)
class Series:
    """Outputs of a unimodal model at every frame: an input of DCMMOE, and RAAV's frames.

    Args:
        embedding: finite everywhere.
        prediction: valence and arousal, finite everywhere.
        valid: whether the modality has evidence of the person at this frame; other frames are filled.
    """

    embedding: Float[ndarray, "frames D"]
    prediction: Float[ndarray, "frames 2"]
    valid: Bool[ndarray, " frames"]


@dataclass(frozen=True)
class Blocks:
    """Outputs of the audio model for every block of every segment: RAAV's audio tokens.

    Args:
        embedding: per block.
        prediction: per block.
        valid: whether the block has frames and its segment was kept.
        modality: whose model gives them.
    """

    embedding: Float[ndarray, "segments K D"]
    prediction: Float[ndarray, "segments K 2"]
    valid: Bool[ndarray, "segments K"]
    modality: str = "audio"


@dataclass(frozen=True)
class Segments:
    """Time grid of a track's segments.

    Args:
        start_s: start of each segment.
        end_s: end of each segment.
        ranges: frames ``[f0, f1)`` of each segment.
        full: whether a segment has its full length.
        block_edges: frame edges of each segment's one-second blocks.
    """

    start_s: Float[ndarray, " segments"]
    end_s: Float[ndarray, " segments"]
    ranges: Int[ndarray, "segments 2"]
    full: Bool[ndarray, " segments"]
    block_edges: Int[ndarray, "segments edges"]


@dataclass(frozen=True)
class Track:
    """One person in one video.

    Args:
        name: name in label files.
        video: stem of the video.
        person: ``main``, ``left``, ``right``, or a number counted from the left.
        time_s: presentation time of every frame.
        gold: annotations, NaN where there is none.
        segments: its time grid.
        parts: features of each modality, of the modality's own type; a modality that is not read has none.
        ratings: ratings of every frame by a modality's pretrained encoder, (frames, K), valence and arousal first; NaN
            without evidence of the person.
        series: embeddings and predictions of trained unimodal models, by modality.
        blocks: embeddings and predictions per block, of the model that gives them.
        shows: whom it shows, where the labels say it.
    """

    name: str
    video: str
    person: str
    time_s: Float[ndarray, " frames"]
    gold: Float[ndarray, "frames 2"]
    segments: Segments
    parts: Mapping[str, Any] = field(default_factory=dict)
    ratings: Mapping[str, Float[ndarray, "frames _"]] = field(default_factory=dict)
    series: Mapping[str, Series] = field(default_factory=dict)
    blocks: Blocks | None = None
    shows: str = ""

    @property
    def num_frames(self) -> int:
        """Frames of the track."""
        return len(self.time_s)

    @cached_property
    def annotated(self) -> Bool[ndarray, " frames"]:
        """Whether each frame is annotated."""
        return ~np.isnan(self.gold).any(axis=1)

    @cached_property
    def segment_gold(self) -> Float[ndarray, "segments 2"]:
        """Mean label of each segment's annotated frames, NaN without any."""
        return timeline.range_means(self.gold, self.segments.ranges)

    @cached_property
    def block_gold(self) -> Float[ndarray, "segments K 2"]:
        """Mean of the annotated frames of each segment's one-second blocks, NaN where there is none."""
        edges = np.minimum(self.segments.block_edges, self.segments.ranges[:, 1:])
        num, blocks = len(edges), edges.shape[1] - 1
        ranges = np.stack([edges[:, :-1], edges[:, 1:]], axis=2).reshape(-1, 2)
        return timeline.range_means(self.gold, ranges).reshape(num, blocks, 2)
