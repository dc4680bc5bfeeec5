"""How the fusions are fed: windows of what the unimodal models say."""

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
from affect.fusion.raav import RAAV, VISUAL
from affect.layers import FusionOutput
from affect.learning.batches import Arrays, Batch, Example, Outputs, Window
from affect.learning.task import TrackTask, frame_example, frame_series, frame_spread, frame_windows, overlap
from affect.settings.models import Dcmmoe, Raav
from affect.settings.names import MODALITIES, Modality

ASKS = " asks "
"""Between the two modalities of an expert's name."""


class FusionTask(TrackTask):
    """What both fusions share: evidence, and frames that no modality saw."""

    modalities: tuple[Modality, ...]
    """What is fused."""
    evidence: tuple[Modality, ...]
    """Those of which any has to see or hear the person for an answer at a frame."""
    sources: tuple[str, ...]
    """What the gates weigh, in their order."""
    hidden: int
    """H, width of the embedding."""

    def seen(self, track: Track) -> Bool[ndarray, " frames"]:
        """Frames at which there is evidence of the person."""
        return np.any([track.series[m].valid for m in self.evidence], axis=0)

    def series(self, track: Track, outputs: Outputs) -> Series:
        """Overlap mean; a frame without evidence takes what the nearest one with evidence has."""
        series = frame_series(track, outputs, self.seen(track), self.hidden)
        if not series.valid.any():
            return series
        nearest = timeline.nearest_valid(series.valid)
        return Series(series.embedding[nearest], series.prediction[nearest], series.valid)

    def gates(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames sources"]:
        """Weight of every source at every frame, overlap mean; 0 where there is no evidence."""
        return overlap(track.num_frames, outputs.windows, outputs.gates, len(self.sources))

    def trust(self, track: Track, outputs: Outputs) -> dict[Modality, Float[ndarray, " frames"]]:
        """Share of each modality in the gates, those that the gates weigh: an expert of two counts half for each."""
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

    def __init__(self, settings: Dcmmoe, widths: Mapping[Modality, int]) -> None:
        """Remember the settings."""
        self._model, self.settings, self.hidden = settings, settings.fit, settings.hidden
        self.modalities = self.evidence = settings.modalities
        self.sources = tuple(f"{asks}{ASKS}{told}" for asks, told in permutations(self.modalities, 2))
        self._widths = {str(m): widths[m] + 2 for m in self.modalities}

    def build(self) -> DCMMOE:
        """Fresh weights."""
        return DCMMOE(self._model, self._widths)

    def windows(self, track: Track) -> list[Window]:
        """Windows of T frames."""
        if not self.seen(track).any():
            return []
        return frame_windows(track.num_frames, self._model.window_frames, self._model.window_hop_frames)

    def example(self, track: Track, window: Window) -> Example:
        """``[embedding; prediction]`` of each modality; what it is at an invalid frame changes nothing."""
        cut = slice(*window)
        series = {str(m): track.series[m] for m in self.modalities}
        inputs: dict[str, Arrays] = {m: (s.embedding[cut], s.prediction[cut]) for m, s in series.items()}
        inputs["valid"] = np.stack([s.valid[cut] for s in series.values()], axis=1)
        return frame_example(track, window, inputs)

    def augment(self, inputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Take modalities away."""
        valid = inputs["valid"]
        kept = kept_modalities(valid.any(dim=1), self._model.modality_dropout, generator)
        return {**inputs, "valid": valid & kept[:, None]}

    def forward(self, model: nn.Module, batch: Batch) -> FusionOutput:
        """Modalities as one dictionary."""
        features = {str(m): batch.inputs[m] for m in self.modalities}
        return model(features=features, valid=batch.inputs["valid"].mT, padding=batch.padding)


class SegmentFrames(tuple[int, int]):
    """The window ``[f0, f1)`` of a segment, which knows its number: a hole in the timestamps gives two the same frames.

    Args:
        window: first frame, and the frame that it ends before.
        segment: number of the segment.
    """

    segment: int

    def __new__(cls, window: tuple[int, int], segment: int) -> "SegmentFrames":
        """Make the pair and remember the number."""
        made = super().__new__(cls, window)
        made.segment = segment
        return made

    def __reduce__(self) -> tuple[type, tuple[tuple[int, int], int]]:
        """Travel with the number."""
        return SegmentFrames, ((self[0], self[1]), self.segment)


class RaavTask(FusionTask):
    """RAAV on segments of frames with their audio blocks.

    The voice changes what is said of a face or a behaviour that is seen; where neither is, RAAV has no frame to say
    anything of (Z_0 = 0), so that a frame is not valid by the voice alone and takes the nearest valid one's answer.

    Args:
        settings: of the model.
        widths: width of each modality's embedding.
    """

    modalities = MODALITIES
    evidence = sources = VISUAL

    def __init__(self, settings: Raav, widths: Mapping[Modality, int]) -> None:
        """Remember the settings."""
        self._model, self.settings, self.hidden = settings, settings.fit, settings.hidden
        self._widths = {str(m): width + 2 for m, width in widths.items()}

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
        """Face and behaviour per frame, audio per block."""
        assert track.blocks is not None and isinstance(window, SegmentFrames)
        cut, blocks, segment = slice(*window), track.blocks, window.segment
        series = {m: track.series[m] for m in MODALITIES if m in VISUAL}
        inputs: dict[str, Arrays] = {str(m): (s.embedding[cut], s.prediction[cut]) for m, s in series.items()}
        inputs["visual_valid"] = np.stack([s.valid[cut] for s in series.values()], axis=1)
        inputs["time_s"] = track.time_s[cut] - track.segments.start_s[segment]
        audio = (blocks.embedding[segment], blocks.prediction[segment])
        return frame_example(track, window, inputs, {"audio": audio, "audio_valid": blocks.valid[segment]})

    def augment(self, inputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Take modalities away."""
        visual, audio = inputs["visual_valid"], inputs["audio_valid"]
        there = torch.cat([visual.any(dim=1), audio.any(dim=1, keepdim=True)], dim=1)  # (B, 3)
        kept = kept_modalities(there, self._model.modality_dropout, generator)
        return {**inputs, "visual_valid": visual & kept[:, None, :2], "audio_valid": audio & kept[:, 2:]}

    def forward(self, model: nn.Module, batch: Batch) -> FusionOutput:
        """Evidence as the model has it, modality first."""
        inputs = {**batch.inputs, "visual_valid": batch.inputs["visual_valid"].mT}
        return model(**inputs, padding=batch.padding)

    def predict(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
        """Smoothed over time, then clipped to [-1, 1]."""
        series = self.series(track, outputs)
        widths = (self._model.smooth_valence_frames, self._model.smooth_arousal_frames)
        smoothed = [timeline.moving_average(series.prediction[:, i], width) for i, width in enumerate(widths)]
        return np.clip(np.stack(smoothed, axis=1), -1, 1)


def kept_modalities(there: Bool[Tensor, "B M"], probability: float, generator: torch.Generator) -> Bool[Tensor, "B M"]:
    """Which modalities training windows keep: each is lost with a probability, but never the last one that is there.

    Args:
        there: which modalities a window has any evidence of.
        probability: of losing one.
        generator: on the CPU.
    """
    if probability == 0:
        return torch.ones_like(there)
    kept = (torch.rand(there.shape, generator=generator) >= probability).to(there.device)
    return kept | ~(kept & there).any(dim=1, keepdim=True)


def without(track: Track, modality: Modality) -> Track:
    """A track as it would be if a modality had seen nothing of it."""
    series = track.series[modality]
    blind = replace(series, valid=np.zeros_like(series.valid))
    blocks = track.blocks
    if modality == "audio" and blocks is not None:
        blocks = replace(blocks, valid=np.zeros_like(blocks.valid))
    return replace(track, series={**track.series, modality: blind}, blocks=blocks)
