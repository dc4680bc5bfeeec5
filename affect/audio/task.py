"""How WavLM is fed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int16
from numpy import ndarray
from torch import Tensor, nn
from transformers import WavLMConfig, WavLMModel

from affect import timeline
from affect.audio.augment import augment
from affect.audio.part import AudioPart
from affect.audio.speaking import SILENCE
from affect.audio.wavlm import WavlmRegressor, load_backbone, parameter_groups, sizes_of
from affect.corpus.track import FULL_SCALE, Blocks, Series, Track
from affect.layers import Output
from affect.learning.batches import Arrays, Batch, Example, Outputs, Window
from affect.learning.task import TrackTask, covered_series, joined
from affect.settings.models import Wavlm


def padded(samples: Int16[ndarray, " _"], length: int) -> Float[ndarray, " length"]:
    """A waveform in [-1, 1], silent past its end up to a full segment."""
    wave = np.zeros(length, dtype=np.float32)
    wave[: len(samples)] = samples / FULL_SCALE
    return wave


class AudioTask(TrackTask):
    """WavLM on waveforms of segments; a window is the four blocks of one segment, each a second long.

    Args:
        settings: of the model.
        segment_samples: samples of a full segment.
    """

    def __init__(self, settings: Wavlm, segment_samples: int) -> None:
        """Remember the settings."""
        self._model, self._samples, self.settings = settings, segment_samples, settings.fit

    def build(self) -> WavlmRegressor:
        """Fresh head on the pretrained backbone."""
        return WavlmRegressor(self._model, load_backbone(self._model.weights, self._model.revision))

    def shell(self, backbone: dict[str, Any]) -> WavlmRegressor:
        """The model whose weights are read next: nothing pretrained is loaded, all of it would be written over."""
        shape = WavLMConfig(**backbone) if backbone else sizes_of(self._model.weights, self._model.revision)
        return WavlmRegressor(self._model, WavLMModel(shape))

    def backbone_sizes(self, model: nn.Module) -> dict[str, Any]:
        """Sizes of WavLM."""
        assert isinstance(model, WavlmRegressor)
        return model.sizes

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The backbone's top at its own rate; pooling and head at the other."""
        assert isinstance(model, WavlmRegressor)
        return parameter_groups(model)

    def windows(self, track: Track) -> list[Window]:
        """The blocks of every segment with a waveform."""
        blocks = self._model.blocks
        return [(int(i) * blocks, (int(i) + 1) * blocks) for i in np.flatnonzero(_audio(track).valid)]

    def trains_on(self, track: Track, window: Window) -> bool:
        """Kept segments with enough annotated blocks."""
        segment = window[0] // self._model.blocks
        num_annotated = int((~np.isnan(track.block_gold[segment, :, 0])).sum())
        return bool(_audio(track).kept[segment]) and num_annotated >= self._model.min_blocks

    def census(self, items: Sequence[Track]) -> str:
        """What the mouth filter and the labels leave of the segments."""
        segments = [(track, i) for track in items for i in range(len(_audio(track).kept))]
        silent = sum(_audio(track).verdict[i].startswith(SILENCE) for track, i in segments)
        heard = [(track, i) for track, i in segments if _audio(track).valid[i]]
        kept = [(track, i) for track, i in heard if _audio(track).kept[i]]
        rejected = [_audio(track).verdict[i] for track, i in heard if not _audio(track).kept[i]]
        hidden, closed = (sum(word in verdict for verdict in rejected) for word in ("mouth seen", "mouth open"))
        rule, blocks = self._model.speaking, self._model.blocks
        learned = sum(self.trains_on(track, (i * blocks, (i + 1) * blocks)) for track, i in kept)
        return (
            f"{len(items)} tracks have {len(segments)} segments, {len(heard)} of them with sound and {silent} silent; "
            f"the mouth is seen in less than {rule.min_coverage:.0%} of the frames of {hidden} and open for less than "
            f"{rule.min_open_s:g} s in {closed}, so {len(kept)} are kept, of which {learned} have "
            f"{self._model.min_blocks} annotated blocks; --wavlm.speaking.* holds the rule"
        )

    def example(self, track: Track, window: Window) -> Example:
        """The waveform in [-1, 1], or what the frozen layers say of it where the track has that; its true length."""
        segment = window[0] // self._model.blocks
        gold = track.block_gold[segment]
        part = _audio(track)
        if part.frozen is None:
            samples = part.waveforms[segment][: self._samples]
            length, x = len(samples), padded(samples, self._samples)
        else:
            length, x = part.frozen[segment].num_samples, part.frozen[segment].states
        whole: dict[str, Arrays] = {"x": x, "num_samples": np.array(length)}
        return Example({}, gold, ~np.isnan(gold).any(axis=1), whole)

    def augment(self, inputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Gain, noise, band limits and reverb on the waveform; states stay as they are."""
        if inputs["x"].ndim == 3:
            return inputs
        return {**inputs, "x": augment(inputs["x"], inputs["num_samples"], self._model.augment, generator)}

    def forward(self, model: nn.Module, batch: Batch) -> Output:
        """Every segment has all its blocks: nothing is padded."""
        return model(**batch.inputs)

    def predict(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
        """Every segment's blocks as frames, kept or not."""
        return self._frames(track, outputs, np.ones(len(_audio(track).kept), dtype=bool)).prediction

    def series(self, track: Track, outputs: Outputs) -> Series:
        """Blocks as frames, averaged over kept segments; valid where a kept segment covers the frame."""
        if not (_audio(track).kept & _audio(track).valid).any():
            heard = self._frames(track, outputs, np.ones(len(_audio(track).kept), dtype=bool))
            return Series(heard.embedding, heard.prediction, np.zeros(track.num_frames, dtype=bool))
        return self._frames(track, outputs, _audio(track).kept)

    def blocks(self, track: Track, outputs: Outputs) -> Blocks:
        """Blocks as RAAV's tokens; valid where the segment was kept and the block has frames."""
        num, blocks = len(_audio(track).kept), self._model.blocks
        values = np.zeros((num, blocks, self._model.hidden + 2), dtype=np.float32)
        valid = np.zeros((num, blocks), dtype=bool)
        for (start, _), said in zip(outputs.windows, joined(outputs), strict=True):
            segment = start // blocks
            values[segment] = said
            valid[segment] = _audio(track).kept[segment] & (np.arange(blocks) < self._num_blocks(track, segment))
        return Blocks(values[..., :-2], values[..., -2:], valid)

    def _num_blocks(self, track: Track, segment: int) -> int:
        """Blocks of a segment that have a frame."""
        first, end = track.segments.ranges[segment]
        return int((track.segments.block_edges[segment, : self._model.blocks] < end).sum()) if end > first else 0

    def _frames(self, track: Track, outputs: Outputs, used: Bool[ndarray, " segments"]) -> Series:
        clock, segments = timeline.Timestamps(track.time_s), track.segments
        fps, known_s = clock.fps, clock.duration_s + 0.5 / clock.fps
        parts = []
        for (start, _), said in zip(outputs.windows, joined(outputs), strict=True):
            segment = start // self._model.blocks
            first, end = (int(v) for v in track.segments.ranges[segment])
            num = self._num_blocks(track, segment)
            if not used[segment] or not num:
                continue
            if segments.end_s[segment] > known_s:  # the labels end before the segment: its first frames alone are here
                from_start_s = track.time_s[first:end] - segments.start_s[segment]
                positions = timeline.block_positions_at(from_start_s, fps, num)
            else:
                positions = timeline.block_positions(end - first, num, fps, full=bool(segments.full[segment]))
            parts.append((first, timeline.interpolate_blocks(said[:num], positions)))
        return covered_series(*timeline.overlap_mean(track.num_frames, parts, self._model.hidden + 2))


def _audio(track: Track) -> AudioPart:
    part: AudioPart = track.parts["audio"]
    return part
