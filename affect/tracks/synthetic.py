"""Synthetic tracks for checks and benchmarks: each modality is the true curve plus independent noise."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from affect import timeline
from affect.corpus.track import Blocks, Segments, Series, Track
from affect.face.part import FacePart

NOISE: dict[str, float] = {"face": 0.3, "behavior": 0.45, "audio": 0.45}
"""Standard deviation of each modality's noise; the true curves have .4."""
DROPOUT: dict[str, float] = {"face": 0.1, "behavior": 0.1, "audio": 0.4}
"""Share of a track without evidence of a modality, in runs of about two seconds."""
SPREAD = 0.4
"""Standard deviation of the true curves."""
BLOCKS = 4
"""One-second blocks of a segment."""


def curve(num_frames: int, fps: float, rng: np.random.Generator) -> Float[ndarray, "frames 2"]:
    """Random valence and arousal curves: sums of sines with periods of 3 to 20 s and random phases."""
    period = np.exp(rng.uniform(np.log(3), np.log(20), (4, 2)))
    phase = rng.uniform(0, 2 * np.pi, (4, 2))
    time_s = np.arange(num_frames)[:, None, None] / fps
    return SPREAD * np.sin(2 * np.pi * time_s / period + phase).sum(axis=1) / np.sqrt(2)


def make_track(
    name: str,
    num_frames: int,
    rng: np.random.Generator,
    *,
    fps: float = 30.0,
    width: int = 256,
    identity: float = 0.0,
) -> Track:
    """Track of one person with outputs of unimodal models.

    The noise has the spectrum of the true curve: smoothing over frames cannot remove it, only fusion can.

    Args:
        name: name of the track and of its video.
        num_frames: length of the track.
        rng: random generator.
        fps: frames per second.
        width: width of the embeddings.
        identity: standard deviation of the person's own offset of every dimension of the embeddings.
    """
    gold = np.clip(curve(num_frames, fps, rng), -1, 1)
    clock = timeline.Timestamps(np.arange(num_frames) / fps)
    segments = _segments(clock)
    series = {m: _series(m, gold, fps, width, rng) for m in NOISE}
    if identity:
        series = {m: _with_offset(s, identity, rng) for m, s in series.items()}
    audio = series["audio"]
    edges = np.minimum(segments.block_edges, segments.ranges[:, 1:])[:, :BLOCKS]
    at = np.minimum(edges, num_frames - 1)
    blocks = Blocks(audio.embedding[at], audio.prediction[at], audio.valid[at] & (edges < segments.ranges[:, 1:]))
    return Track(
        name=name,
        video=name,
        person="main",
        time_s=clock.time_s,
        gold=gold,
        segments=segments,
        parts={"face": FacePart(series["face"].valid, series["face"].embedding, np.full(num_frames, np.nan))},
        series=series,
        blocks=blocks,
    )


def _series(
    modality: str, gold: Float[ndarray, "frames 2"], fps: float, width: int, rng: np.random.Generator
) -> Series:
    seen = gold + NOISE[modality] / SPREAD * curve(len(gold), fps, rng)
    valid = _runs(len(gold), DROPOUT[modality], fps, rng)
    seen = seen[timeline.nearest_valid(valid)] if valid.any() else np.zeros_like(seen)
    mixing = np.random.default_rng(list(NOISE).index(modality)).normal(
        size=(2, width)
    )  # equal for all tracks of a modality
    embedding = np.tanh(seen @ mixing + 0.1 * rng.normal(size=(len(gold), width)))
    return Series(embedding.astype(np.float32), seen.astype(np.float32), valid)


def _with_offset(series: Series, identity: float, rng: np.random.Generator) -> Series:
    """A series whose embeddings have an offset drawn once per track."""
    offset = identity * rng.normal(size=series.embedding.shape[1])
    return replace(series, embedding=(series.embedding + offset).astype(np.float32))


def _runs(num_frames: int, share: float, fps: float, rng: np.random.Generator) -> Bool[ndarray, " frames"]:
    """Mask that is False for a share of the frames, in runs of two seconds."""
    length = max(1, round(2 * fps))
    dropped = rng.random(num_frames // length + 1) < share
    return ~np.repeat(dropped, length)[:num_frames]


def _segments(clock: timeline.Timestamps) -> Segments:
    ranges_s = timeline.segments(clock.duration_s)
    start_s, end_s = np.array(ranges_s).T
    return Segments(
        start_s=start_s,
        end_s=end_s,
        ranges=timeline.frame_ranges(clock, ranges_s),
        full=np.isclose(end_s - start_s, 4.0),
        block_edges=np.array([clock.block_edges(start, BLOCKS) for start in start_s]),
    )
