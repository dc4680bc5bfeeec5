"""The audio's task: waveforms of segments in; one Series, and RAAV's audio tokens, per track out.

Source: spec sections 2 and 5.
"""

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
from affect.audio.wavlm import WavlmRegressor, load_backbone, load_config, parameter_groups
from affect.corpus.track import FULL_SCALE, Blocks, Series, Track
from affect.layers import Output
from affect.learning.batches import Arrays, Batch, Example, Outputs, Window
from affect.learning.task import TrackTask, covered_series, joined
from affect.settings.models import Wavlm


def padded(samples: Int16[ndarray, " _"], length: int) -> Float[ndarray, " length"]:
    """Scales a waveform to [-1, 1] and pads it with zeros to ``length`` samples."""
    wave = np.zeros(length, dtype=np.float32)
    wave[: len(samples)] = samples / FULL_SCALE
    return wave


class AudioTask(TrackTask):
    """Trains and runs WavLM on waveforms of segments; a window is one segment, its points are four blocks of 1 s.

    The target of a block is the mean of its annotated frames.

    Args:
        settings: settings of the model and its training.
        segment_samples: samples of a full segment.

    Source: spec sections 5.3 to 5.5.
    """

    def __init__(self, settings: Wavlm, segment_samples: int) -> None:
        """Stores the settings."""
        self._model, self._samples, self.settings = settings, segment_samples, settings.fit

    def build(self) -> WavlmRegressor:
        """Builds the model: a random head on the pretrained backbone."""
        return WavlmRegressor(self._model, load_backbone(self._model.weights, self._model.revision))

    def build_empty(self, backbone: dict[str, Any]) -> WavlmRegressor:
        """Builds the model without loading pretrained weights, from the backbone's configuration."""
        config = WavLMConfig(**backbone) if backbone else load_config(self._model.weights, self._model.revision)
        return WavlmRegressor(self._model, WavLMModel(config))

    def backbone_sizes(self, model: nn.Module) -> dict[str, Any]:
        """Sizes of WavLM."""
        assert isinstance(model, WavlmRegressor)
        return model.sizes

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Two groups: the trained layers of the backbone, and pooling with head, each with its learning rate."""
        assert isinstance(model, WavlmRegressor)
        return parameter_groups(model)

    def windows(self, track: Track) -> list[Window]:
        """Blocks ``[start, end)`` of every segment with a waveform."""
        blocks = self._model.blocks
        return [(int(i) * blocks, (int(i) + 1) * blocks) for i in np.flatnonzero(_audio(track).valid)]

    def trains_on(self, track: Track, window: Window) -> bool:
        """True for segments that the mouth filter keeps and that have ``min_blocks`` annotated blocks."""
        segment = window[0] // self._model.blocks
        num_annotated = int((~np.isnan(track.block_gold[segment, :, 0])).sum())
        return bool(_audio(track).kept[segment]) and num_annotated >= self._model.min_blocks

    def describe_samples(self, items: Sequence[Track]) -> str:
        """Counts segments before and after the mouth filter and the labels."""
        segments = [(track, i) for track in items for i in range(len(_audio(track).kept))]
        silent = sum(_audio(track).verdict[i].startswith(SILENCE) for track, i in segments)
        with_sound = [(track, i) for track, i in segments if _audio(track).valid[i]]
        kept = [(track, i) for track, i in with_sound if _audio(track).kept[i]]
        rejected = [_audio(track).verdict[i] for track, i in with_sound if not _audio(track).kept[i]]
        hidden, closed = (sum(word in verdict for verdict in rejected) for word in ("mouth seen", "mouth open"))
        rule, blocks = self._model.speaking, self._model.blocks
        num_trained = sum(self.trains_on(track, (i * blocks, (i + 1) * blocks)) for track, i in kept)
        return (
            f"{len(items)} tracks have {len(segments)} segments, {len(with_sound)} of them with sound and {silent} "
            f"silent; the mouth is seen in less than {rule.min_coverage:.0%} of the frames of {hidden} and open for "
            f"less than {rule.min_open_s:g} s in {closed}, so {len(kept)} are kept, of which {num_trained} have "
            f"{self._model.min_blocks} annotated blocks; --wavlm.speaking.* holds the rule"
        )

    def example(self, track: Track, window: Window) -> Example:
        """Waveform in [-1, 1] with its true length, or the frozen layers' states of it if the track holds them."""
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
        """Augments waveforms (:func:`affect.audio.augment.augment`); states of frozen layers are not changed."""
        if inputs["x"].ndim == 3:
            return inputs
        return {**inputs, "x": augment(inputs["x"], inputs["num_samples"], self._model.augment, generator)}

    def forward(self, model: nn.Module, batch: Batch) -> Output:
        """Calls the model without a padding mask: every window has all its blocks."""
        return model(**batch.inputs)

    def predict(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
        """Valence and arousal of every frame from all segments, kept or not."""
        return self._frames(track, outputs, np.ones(len(_audio(track).kept), dtype=bool)).prediction

    def series(self, track: Track, outputs: Outputs) -> Series:
        """Interpolates blocks to frames and averages over kept segments; valid where a kept segment covers the frame.

        Without any kept segment, values come from all segments and no frame is valid.
        """
        if not (_audio(track).kept & _audio(track).valid).any():
            every = self._frames(track, outputs, np.ones(len(_audio(track).kept), dtype=bool))
            return Series(every.embedding, every.prediction, np.zeros(track.num_frames, dtype=bool))
        return self._frames(track, outputs, _audio(track).kept)

    def blocks(self, track: Track, outputs: Outputs) -> Blocks:
        """Returns the blocks as audio tokens of RAAV; valid if the segment is kept and the block has frames."""
        num, blocks = len(_audio(track).kept), self._model.blocks
        values = np.zeros((num, blocks, self._model.hidden + 2), dtype=np.float32)
        valid = np.zeros((num, blocks), dtype=bool)
        for (start, _), of_blocks in zip(outputs.windows, joined(outputs), strict=True):
            segment = start // blocks
            values[segment] = of_blocks
            valid[segment] = _audio(track).kept[segment] & (np.arange(blocks) < self._num_blocks(track, segment))
        return Blocks(values[..., :-2], values[..., -2:], valid)

    def _num_blocks(self, track: Track, segment: int) -> int:
        """Number of blocks of a segment that have a frame."""
        first, end = track.segments.ranges[segment]
        return int((track.segments.block_edges[segment, : self._model.blocks] < end).sum()) if end > first else 0

    def _frames(self, track: Track, outputs: Outputs, used: Bool[ndarray, " segments"]) -> Series:
        """Interpolates blocks of the used segments to frames; averages overlapping segments."""
        clock, segments = timeline.Timestamps(track.time_s), track.segments
        fps, known_s = clock.fps, clock.duration_s + 0.5 / clock.fps
        parts = []
        for (start, _), values in zip(outputs.windows, joined(outputs), strict=True):
            segment = start // self._model.blocks
            first, end = (int(v) for v in track.segments.ranges[segment])
            num = self._num_blocks(track, segment)
            if not used[segment] or not num:
                continue
            if segments.end_s[segment] > known_s:  # the labels end within the segment: only its first frames are known
                from_start_s = track.time_s[first:end] - segments.start_s[segment]
                positions = timeline.block_positions_at(from_start_s, fps, num)
            else:
                positions = timeline.block_positions(end - first, num, fps, full=bool(segments.full[segment]))
            parts.append((first, timeline.interpolate_blocks(values[:num], positions)))
        return covered_series(*timeline.overlap_mean(track.num_frames, parts, self._model.hidden + 2))


def _audio(track: Track) -> AudioPart:
    part: AudioPart = track.parts["audio"]
    return part
