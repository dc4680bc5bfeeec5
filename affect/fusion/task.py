"""Tasks of the fusions: windows of the unimodal models' outputs in, one answer per frame out."""

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
from affect.learning.task import TrackTask, frame_example, frame_series, frame_spread, frame_windows, overlap
from affect.settings.models import Dcmmoe, Raav

ASKS = " asks "
"""Between the two modalities of an expert's name."""


class FusionTask(TrackTask):
    """Base of the tasks of both fusions: evidence, and frames without any."""

    modalities: tuple[str, ...]
    """Modalities that are fused."""
    evidence: tuple[str, ...]
    """Modalities of which at least one has to be valid for an answer at a frame."""
    sources: tuple[str, ...]
    """Names of the gates' weights, in their order."""
    hidden: int
    """H, width of the embedding."""

    def seen(self, track: Track) -> Bool[ndarray, " frames"]:
        """Frames with evidence of the person."""
        return np.any([track.series[m].valid for m in self.evidence], axis=0)

    def series(self, track: Track, outputs: Outputs) -> Series:
        """Overlap mean; a frame without evidence takes the values of the nearest frame with evidence."""
        series = frame_series(track, outputs, self.seen(track), self.hidden)
        if not series.valid.any():
            return series
        nearest = timeline.nearest_valid(series.valid)
        return Series(series.embedding[nearest], series.prediction[nearest], series.valid)

    def gates(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames sources"]:
        """Weight of every source at every frame: overlap mean, 0 where there is no evidence."""
        return overlap(track.num_frames, outputs.windows, outputs.gates, len(self.sources))

    def trust(self, track: Track, outputs: Outputs) -> dict[str, Float[ndarray, " frames"]]:
        """Share of each weighed modality in the gates; an expert of two modalities counts half for each."""
        gates = self.gates(track, outputs)
        parts = [source.split(ASKS) for source in self.sources]
        shares = {m: np.array([part.count(m) / len(part) for part in parts]) for m in self.modalities}
        return {m: gates @ share for m, share in shares.items() if share.any()}

    def spread(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
        """Of windows of frames."""
        return frame_spread(track, outputs)


class DcmmoeTask(FusionTask):
    """DCMMOE on windows of frames.

    Args:
        settings: of the model.
        widths: width of each modality's embedding.
    """

    def __init__(self, settings: Dcmmoe, widths: Mapping[str, int]) -> None:
        """Keep the settings."""
        self._model, self.settings, self.hidden = settings, settings.fit, settings.hidden
        self.modalities = self.evidence = settings.modalities
        self.sources = tuple(f"{query}{ASKS}{context}" for query, context in permutations(self.modalities, 2))
        self._widths = {m: widths[m] + 2 for m in self.modalities}

    def build(self) -> DCMMOE:
        """Fresh weights."""
        return DCMMOE(self._model, self._widths)

    def windows(self, track: Track) -> list[Window]:
        """Windows of T frames."""
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
        """Drop modalities."""
        valid = inputs["valid"]
        kept = kept_modalities(valid.any(dim=1), self._model.modality_dropout, generator)
        return {**inputs, "valid": valid & kept[:, None]}

    def forward(self, model: nn.Module, batch: Batch) -> FusionOutput:
        """Modalities as one dictionary."""
        features = {m: batch.inputs[m] for m in self.modalities}
        return model(features=features, valid=batch.inputs["valid"].mT, padding=batch.padding)


class SegmentFrames(tuple[int, int]):
    """The window ``[f0, f1)`` of a segment with its number: where timestamps have a gap, two have the same frames.

    Args:
        window: first frame, and the frame that it ends before.
        segment: number of the segment.
    """

    segment: int

    def __new__(cls, window: tuple[int, int], segment: int) -> "SegmentFrames":
        """Make the pair and keep the number."""
        made = super().__new__(cls, window)
        made.segment = segment
        return made

    def __reduce__(self) -> tuple[type, tuple[tuple[int, int], int]]:
        """Pickle with the number."""
        return SegmentFrames, ((self[0], self[1]), self.segment)


class RaavTask(FusionTask):
    """RAAV on segments of frames with their audio blocks.

    Audio changes the answer at frames where a visual modality is valid. Where none is, RAAV has no frame (Z_0 = 0): the
    frame is not valid, and takes the answer of the nearest valid one.

    Args:
        settings: of the model.
        widths: width of each modality's embedding.
    """

    def __init__(self, settings: Raav, widths: Mapping[str, int]) -> None:
        """Keep the settings."""
        self._model, self.settings, self.hidden = settings, settings.fit, settings.hidden
        self.modalities = settings.reads
        self.evidence = self.sources = tuple(settings.priors)
        self._widths = {m: width + 2 for m, width in widths.items()}

    def build(self) -> RAAV:
        """Fresh weights."""
        return RAAV(self._model, self._widths)

    def windows(self, track: Track) -> list[Window]:
        """Frames of every segment that has any."""
        if not self.seen(track).any():
            return []
        ranges = track.segments.ranges.tolist()
        return [SegmentFrames((a, b), number) for number, (a, b) in enumerate(ranges) if b > a]

    def example(self, track: Track, window: Window) -> Example:
        """Visual modalities per frame, audio per block."""
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
        """Drop modalities."""
        visual, audio = inputs["visual_valid"], inputs["audio_valid"]
        present = torch.cat([visual.any(dim=1), audio.any(dim=1, keepdim=True)], dim=1)  # (B, M + 1)
        kept = kept_modalities(present, self._model.modality_dropout, generator)
        return {**inputs, "visual_valid": visual & kept[:, None, :-1], "audio_valid": audio & kept[:, -1:]}

    def forward(self, model: nn.Module, batch: Batch) -> FusionOutput:
        """Evidence with the modality first."""
        inputs = {**batch.inputs, "visual_valid": batch.inputs["visual_valid"].mT}
        return model(**inputs, padding=batch.padding)

    def predict(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
        """Smoothed over time, then clipped to [-1, 1]."""
        series = self.series(track, outputs)
        widths = (self._model.smooth_valence_frames, self._model.smooth_arousal_frames)
        smoothed = [timeline.moving_average(series.prediction[:, i], width) for i, width in enumerate(widths)]
        return np.clip(np.stack(smoothed, axis=1), -1, 1)


def kept_modalities(
    present: Bool[Tensor, "B M"], probability: float, generator: torch.Generator
) -> Bool[Tensor, "B M"]:
    """Draw the modalities that training windows keep: each is dropped with a probability, but never the last one.

    Args:
        present: modalities of which a window has any evidence.
        probability: of dropping one.
        generator: on the CPU.
    """
    if probability == 0:
        return torch.ones_like(present)
    kept = (torch.rand(present.shape, generator=generator) >= probability).to(present.device)
    return kept | ~(kept & present).any(dim=1, keepdim=True)


def without(track: Track, modality: str) -> Track:
    """A track without the evidence of a modality."""
    series = track.series[modality]
    blind = replace(series, valid=np.zeros_like(series.valid))
    blocks = track.blocks
    if blocks is not None and blocks.modality == modality:
        blocks = replace(blocks, valid=np.zeros_like(blocks.valid))
    return replace(track, series={**track.series, modality: blind}, blocks=blocks)
