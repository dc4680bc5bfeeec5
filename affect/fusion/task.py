"""Tasks of the fusions: windows of the unimodal models' outputs in, one prediction per frame out."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor, nn

from affect import timeline
from affect.corpus.track import Series, Track
from affect.fusion.dcmmoe import DCMMOE
from affect.fusion.raav import RAAV
from affect.layers import FusionOutput
from affect.learning.batches import Arrays, Batch, Example, Outputs, Window
from affect.learning.centering import centred, centred_width
from affect.learning.task import TrackTask, frame_example, frame_series, frame_spread, frame_windows, overlap
from affect.settings.models import Dcmmoe, Raav
from affect.settings.names import Centering

ASKS = " asks "
"""Separator of query and context modality in an expert's name."""


class FusionTask(TrackTask):
    """Base of both fusions' tasks: evidence, gates, and frames without evidence."""

    modalities: tuple[str, ...]
    """Modalities to fuse."""
    evidence: tuple[str, ...]
    """Modalities of which at least one must be valid at a frame with a prediction."""
    sources: tuple[str, ...]
    """Names of the gate weights, in order."""
    hidden: int
    """H, width of the embedding."""
    center: Centering = "none"
    """Centring of the modalities' embeddings."""

    def prepare(self, track: Track) -> Track:
        """Embeddings of frames and blocks, with or relative to the person's median if the settings say so."""
        if self.center == "none":
            return track
        series = {m: replace(s, embedding=centred(s.embedding, s.valid, self.center)) for m, s in track.series.items()}
        blocks = track.blocks
        if blocks is not None:
            flat = blocks.embedding.reshape(-1, blocks.embedding.shape[-1])
            embedding = centred(flat, blocks.valid.reshape(-1), self.center)
            blocks = replace(blocks, embedding=embedding.reshape(*blocks.valid.shape, embedding.shape[-1]))
        return replace(track, series=series, blocks=blocks)

    def seen(self, track: Track) -> Bool[ndarray, " frames"]:
        """Frames with evidence of the person."""
        return np.any([track.series[m].valid for m in self.evidence], axis=0)

    def series(self, track: Track, outputs: Outputs) -> Series:
        """Overlap mean; frames without evidence get the values of the nearest frame with evidence."""
        series = frame_series(track, outputs, self.seen(track), self.hidden)
        if not series.valid.any():
            return series
        nearest = timeline.nearest_valid(series.valid)
        return Series(series.embedding[nearest], series.prediction[nearest], series.valid)

    def gates(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames sources"]:
        """Gate weights at every frame: overlap mean, 0 without evidence."""
        return overlap(track.num_frames, outputs.windows, outputs.gates, len(self.sources))

    def trust(self, track: Track, outputs: Outputs) -> dict[str, Float[ndarray, " frames"]]:
        """Weight of each modality in the gates; an expert counts half for each of its two modalities."""
        gates = self.gates(track, outputs)
        parts = [source.split(ASKS) for source in self.sources]
        shares = {m: np.array([part.count(m) / len(part) for part in parts]) for m in self.modalities}
        return {m: gates @ share for m, share in shares.items() if share.any()}

    def spread(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
        """Half the range of overlapping windows' predictions."""
        return frame_spread(track, outputs)


class DcmmoeTask(FusionTask):
    """DCMMOE on windows of frames.

    Args:
        settings: settings of the model.
        widths: width of each modality's embedding.
    """

    def __init__(self, settings: Dcmmoe, widths: Mapping[str, int]) -> None:
        """Stores settings and input widths."""
        self._model, self.settings, self.hidden = settings, settings.fit, settings.hidden
        self.modalities = self.evidence = settings.modalities
        self.center = settings.center
        self.sources = tuple(f"{query}{ASKS}{context}" for query, context in permutations(self.modalities, 2))
        self._widths = {m: centred_width(widths[m], self.center) + 2 for m in self.modalities}

    def build(self) -> DCMMOE:
        """Model with newly initialised weights."""
        return DCMMOE(self._model, self._widths)

    def windows(self, track: Track) -> list[Window]:
        """Windows of T frames; none without any evidence."""
        if not self.seen(track).any():
            return []
        return frame_windows(track.num_frames, self._model.window_frames, self._model.window_hop_frames)

    def example(self, track: Track, window: Window) -> Example:
        """``[embedding; prediction]`` of each modality; values at invalid frames have no effect."""
        cut = slice(*window)
        series = {m: track.series[m] for m in self.modalities}
        inputs: dict[str, Arrays] = {m: (s.embedding[cut], s.prediction[cut]) for m, s in series.items()}
        inputs["valid"] = np.stack([s.valid[cut] for s in series.values()], axis=1)
        return frame_example(track, window, inputs)

    def augment(self, inputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Modality dropout."""
        valid = inputs["valid"]
        kept = kept_modalities(valid.any(dim=1), self._model.modality_dropout, generator)
        return {**inputs, "valid": valid & kept[:, None]}

    def forward(self, model: nn.Module, batch: Batch) -> FusionOutput:
        """Runs the model on the modalities' inputs."""
        features = {m: batch.inputs[m] for m in self.modalities}
        return model(features=features, valid=batch.inputs["valid"].mT, padding=batch.padding)


class SegmentFrames(tuple[int, int]):
    """Window ``[f0, f1)`` of a segment with its number; at a gap of timestamps, two segments may have equal frames.

    Args:
        window: first frame, and the frame after the last one.
        segment: number of the segment.
    """

    segment: int

    def __new__(cls, window: tuple[int, int], segment: int) -> "SegmentFrames":
        """Creates the pair and stores the number."""
        pair = super().__new__(cls, window)
        pair.segment = segment
        return pair

    def __reduce__(self) -> tuple[type, tuple[tuple[int, int], int]]:
        """Pickles the number too."""
        return SegmentFrames, ((self[0], self[1]), self.segment)


class RaavTask(FusionTask):
    """RAAV on segments of frames with their audio blocks.

    Audio affects frames where a visual modality is valid. A frame without one is not valid (Z_0 = 0); it gets the
    prediction of the nearest valid frame.

    Args:
        settings: settings of the model.
        widths: width of each modality's embedding.
    """

    def __init__(self, settings: Raav, widths: Mapping[str, int]) -> None:
        """Stores settings and input widths."""
        self._model, self.settings, self.hidden = settings, settings.fit, settings.hidden
        self.modalities, self.center = settings.reads, settings.center
        self.evidence = self.sources = tuple(settings.priors)
        self._widths = {m: centred_width(width, self.center) + 2 for m, width in widths.items()}

    def build(self) -> RAAV:
        """Model with newly initialised weights."""
        return RAAV(self._model, self._widths)

    def windows(self, track: Track) -> list[Window]:
        """Segments that contain frames; none without any evidence."""
        if not self.seen(track).any():
            return []
        ranges = track.segments.ranges.tolist()
        return [SegmentFrames((a, b), number) for number, (a, b) in enumerate(ranges) if b > a]

    def example(self, track: Track, window: Window) -> Example:
        """``[embedding; prediction]`` of visual modalities per frame, and of audio per block."""
        blocks = track.blocks
        assert blocks is not None and blocks.modality == self._model.audio and isinstance(window, SegmentFrames)
        cut, segment = slice(*window), window.segment
        series = {m: track.series[m] for m in self.sources}
        inputs: dict[str, Arrays] = {m: (s.embedding[cut], s.prediction[cut]) for m, s in series.items()}
        inputs["visual_valid"] = np.stack([s.valid[cut] for s in series.values()], axis=1)
        inputs["time_s"] = track.time_s[cut] - track.segments.start_s[segment]
        audio = (blocks.embedding[segment], blocks.prediction[segment])
        return frame_example(track, window, inputs, {"audio": audio, "audio_valid": blocks.valid[segment]})

    def augment(self, inputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Modality dropout."""
        visual, audio = inputs["visual_valid"], inputs["audio_valid"]
        present = torch.cat([visual.any(dim=1), audio.any(dim=1, keepdim=True)], dim=1)  # (B, M + 1)
        kept = kept_modalities(present, self._model.modality_dropout, generator)
        return {**inputs, "visual_valid": visual & kept[:, None, :-1], "audio_valid": audio & kept[:, -1:]}

    def forward(self, model: nn.Module, batch: Batch) -> FusionOutput:
        """Runs the model; masks are transposed to (B, M, T)."""
        inputs = {**batch.inputs, "visual_valid": batch.inputs["visual_valid"].mT}
        return model(**inputs, padding=batch.padding)

    def predict(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
        """Predictions after a centred moving average, clipped to [-1, 1]."""
        series = self.series(track, outputs)
        widths = (self._model.smooth_valence_frames, self._model.smooth_arousal_frames)
        smoothed = [timeline.moving_average(series.prediction[:, i], width) for i, width in enumerate(widths)]
        return np.clip(np.stack(smoothed, axis=1), -1, 1)


def kept_modalities(
    present: Bool[Tensor, "B M"], probability: float, generator: torch.Generator
) -> Bool[Tensor, "B M"]:
    """Mask of modality dropout: each modality is dropped with a probability; a window that would lose all keeps all.

    Args:
        present: modalities with evidence in each window.
        probability: probability of dropping a modality.
        generator: random generator on the CPU.
    """
    if probability == 0:
        return torch.ones_like(present)
    kept = (torch.rand(present.shape, generator=generator) >= probability).to(present.device)
    return kept | ~(kept & present).any(dim=1, keepdim=True)


def without(track: Track, modality: str) -> Track:
    """Copy of a track without the evidence of one modality."""
    series = track.series[modality]
    invalid = replace(series, valid=np.zeros_like(series.valid))
    blocks = track.blocks
    if blocks is not None and blocks.modality == modality:
        blocks = replace(blocks, valid=np.zeros_like(blocks.valid))
    return replace(track, series={**track.series, modality: invalid}, blocks=blocks)
