"""How each model is fed, and how its outputs become frames: five models and the frame encoder, one class each.

The models are in their modality's room, the arithmetic of windows in :mod:`affect.timeline`.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor, nn

from affect import timeline, weights
from affect.audio.augment import augment
from affect.audio.wavlm import WavlmRegressor, load_backbone, parameter_groups
from affect.behavior.mamba import Mamba
from affect.concordance import hybrid_loss
from affect.config import Dcmmoe, EncoderRun, FaceTransformer, Modality, Raav, Wavlm
from affect.config import Mamba as MambaSettings
from affect.corpus.images import ImageError, Images, read_image
from affect.corpus.track import FULL_SCALE, Blocks, Series, Track
from affect.face.augment import augment as augment_crops
from affect.face.crop import grow, letterbox, normalise
from affect.face.grada import Grada, load_trunk
from affect.face.transformer import FaceTransformer as FaceTransformerModel
from affect.fusion.dcmmoe import DCMMOE
from affect.fusion.raav import RAAV
from affect.layers import Output
from affect.learning import Example, Outputs, Task, Window


class TrackTask(Task):
    """What the tasks on tracks share."""

    def trains_on(self, track: Track, window: Window) -> bool:
        """Windows with an annotated frame."""
        return bool(track.annotated[slice(*window)].any())

    @abstractmethod
    def series(self, track: Track, outputs: Outputs) -> Series:
        """What the model says of every frame."""

    def predict(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
        """Valence and arousal of every frame."""
        return self.series(track, outputs).prediction


class FaceTask(TrackTask):
    """The face's temporal regressor on windows of frames.

    Args:
        settings: of the model.
        width: width of the face embedding.
    """

    def __init__(self, settings: FaceTransformer, width: int) -> None:
        """Remember the settings."""
        self._model, self._width, self.settings = settings, width, settings.fit

    def build(self) -> FaceTransformerModel:
        """Fresh weights."""
        return FaceTransformerModel(self._model, self._width)

    def windows(self, track: Track) -> list[Window]:
        """Windows of T frames; none if the face was never found."""
        if not track.face_valid.any():
            return []
        return _frame_windows(track.num_frames, self._model.window_frames, self._model.window_hop_frames)

    def example(self, track: Track, window: Window, length: int) -> Example:
        """Embeddings, those of unseen frames filled from the nearest."""
        x = track.face_embedding[slice(*window)].astype(np.float32)
        return _frame_example(track, window, length, {"x": _pad(x, length)})

    def series(self, track: Track, outputs: Outputs) -> Series:
        """Overlap mean."""
        return _frame_series(track, outputs, track.face_valid, self._model.hidden)


class BehaviorTask(TrackTask):
    """The behaviour's Mamba on windows of segments.

    Args:
        settings: of the model.
        width: width of a segment's state.
    """

    def __init__(self, settings: MambaSettings, width: int) -> None:
        """Remember the settings."""
        self._model, self._width, self.settings = settings, width, settings.fit

    def build(self) -> Mamba:
        """Fresh weights."""
        return Mamba(self._model, self._width)

    def windows(self, track: Track) -> list[Window]:
        """Windows of segments; none if no segment has states."""
        valid = track.segments.behavior_valid
        if not valid.any():
            return []
        return timeline.segment_windows(len(valid), self._model.window_segments, self._model.window_hop_segments)

    def trains_on(self, track: Track, window: Window) -> bool:
        """Windows with a segment that has states and an annotated frame."""
        return bool(self._gold(track)[1][slice(*window)].any())

    def example(self, track: Track, window: Window, length: int) -> Example:
        """States, those of segments without any filled from the nearest; targets are means over segments."""
        states = getattr(track.segments, self._model.states)
        filled = states[timeline.nearest_valid(track.segments.behavior_valid)[slice(*window)]]
        gold, annotated = self._gold(track)
        num = window[1] - window[0]
        inputs = {"x": _pad(filled.astype(np.float32), length), "padding": np.arange(length) >= num}
        return Example(inputs, _pad(gold[slice(*window)], length), _pad(annotated[slice(*window)], length))

    def series(self, track: Track, outputs: Outputs) -> Series:
        """Overlap mean over segments, copied to their frames, averaged where segments overlap."""
        segments = track.segments
        per_segment = _overlap(len(segments.ranges), outputs, self._model.hidden)
        parts = [
            (int(first), np.repeat(per_segment[i][None], last - first, axis=0))
            for i, (first, last) in enumerate(segments.ranges)
            if segments.behavior_valid[i]
        ]
        return _series(*timeline.overlap_mean(track.num_frames, parts, self._model.hidden + 2))

    def _gold(self, track: Track) -> tuple[Float[ndarray, "segments 2"], Bool[ndarray, " segments"]]:
        means = timeline.range_means(track.gold, track.segments.ranges)
        annotated = ~np.isnan(means).any(axis=1) & track.segments.behavior_valid
        return np.nan_to_num(means), annotated


class AudioTask(TrackTask):
    """WavLM on waveforms of segments, one segment a window, four blocks of a second each.

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

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The backbone's top at its own rate; pooling and head at the other."""
        assert isinstance(model, WavlmRegressor)
        return parameter_groups(model)

    def windows(self, track: Track) -> list[Window]:
        """Every segment with a waveform."""
        return [(int(i), int(i) + 1) for i in np.flatnonzero(track.segments.audio_valid)]

    def trains_on(self, track: Track, window: Window) -> bool:
        """Kept segments with enough annotated blocks."""
        gold = self._gold(track, window[0])
        return bool(track.segments.kept[window[0]]) and int((~np.isnan(gold[:, 0])).sum()) >= self._model.min_blocks

    def example(self, track: Track, window: Window, length: int) -> Example:
        """The waveform in [-1, 1] and its true length."""
        wave = track.segments.waveforms[window[0]][: self._samples].astype(np.float32) / FULL_SCALE
        inputs = {"waveform": _pad(wave, self._samples), "num_samples": np.array(len(wave))}
        gold = self._gold(track, window[0])
        return Example(inputs, np.nan_to_num(gold), ~np.isnan(gold).any(axis=1))

    def augment(self, inputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Gain, noise, band limits and reverb on the waveform."""
        wave = augment(inputs["waveform"], inputs["num_samples"], self._model.augment, generator)
        return {**inputs, "waveform": wave}

    def predict(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
        """Every segment's blocks as frames, kept or not."""
        return self._frames(track, outputs, np.ones(len(track.segments.kept), dtype=bool)).prediction

    def series(self, track: Track, outputs: Outputs) -> Series:
        """Blocks as frames, averaged over kept segments; valid where a kept segment covers the frame."""
        if not (track.segments.kept & track.segments.audio_valid).any():
            heard = self._frames(track, outputs, np.ones(len(track.segments.kept), dtype=bool))
            return Series(heard.embedding, heard.prediction, np.zeros(track.num_frames, dtype=bool))
        return self._frames(track, outputs, track.segments.kept)

    def blocks(self, track: Track, outputs: Outputs) -> Blocks:
        """Blocks as RAAV's tokens; valid where the segment was kept and the block has frames."""
        num, blocks = len(track.segments.kept), self._model.blocks
        embedding = np.zeros((num, blocks, self._model.hidden), dtype=np.float32)
        prediction = np.zeros((num, blocks, 2), dtype=np.float32)
        valid = np.zeros((num, blocks), dtype=bool)
        for (segment, _), values, states in zip(*outputs, strict=True):
            embedding[segment], prediction[segment] = states, values
            valid[segment] = track.segments.kept[segment] & (np.arange(blocks) < self._num_blocks(track, segment))
        return Blocks(embedding, prediction, valid)

    def _num_blocks(self, track: Track, segment: int) -> int:
        """Blocks of a segment that have a frame."""
        first, end = track.segments.ranges[segment]
        return int((track.segments.block_edges[segment, : self._model.blocks] < end).sum()) if end > first else 0

    def _gold(self, track: Track, segment: int) -> Float[ndarray, "K 2"]:
        edges = np.minimum(track.segments.block_edges[segment], track.segments.ranges[segment, 1])
        return timeline.range_means(track.gold, np.stack([edges[:-1], edges[1:]], axis=1))

    def _frames(self, track: Track, outputs: Outputs, used: Bool[ndarray, " segments"]) -> Series:
        fps = timeline.Timestamps(track.time_s).fps
        parts = []
        for (segment, _), values, states in zip(*outputs, strict=True):
            first, end = (int(v) for v in track.segments.ranges[segment])
            num = self._num_blocks(track, segment)
            if not used[segment] or not num:
                continue
            full = bool(track.segments.full[segment])
            positions = timeline.block_positions(end - first, num, fps, full=full)
            both = np.concatenate([states, values], axis=1)[:num]
            parts.append((first, timeline.interpolate_blocks(both, positions)))
        return _series(*timeline.overlap_mean(track.num_frames, parts, self._model.hidden + 2))


class DcmmoeTask(TrackTask):
    """DCMMOE on windows of frames of what the unimodal models say.

    Args:
        settings: of the model.
        widths: width of each modality's embedding.
    """

    def __init__(self, settings: Dcmmoe, widths: Mapping[Modality, int]) -> None:
        """Remember the settings."""
        self._model, self.settings = settings, settings.fit
        self._widths = {str(m): widths[m] + 2 for m in settings.modalities}

    def build(self) -> DCMMOE:
        """Fresh weights."""
        return DCMMOE(self._model, self._widths)

    def windows(self, track: Track) -> list[Window]:
        """Windows of T frames; none if no modality ever saw the person."""
        if not any(track.series[m].valid.any() for m in self._model.modalities):
            return []
        return _frame_windows(track.num_frames, self._model.window_frames, self._model.window_hop_frames)

    def example(self, track: Track, window: Window, length: int) -> Example:
        """``[embedding; prediction]`` of each modality, at an invalid frame the nearest valid one's."""
        inputs = {str(m): _pad(_features(track.series[m], window), length) for m in self._model.modalities}
        valid = [_pad(track.series[m].valid[slice(*window)], length) for m in self._model.modalities]
        return _frame_example(track, window, length, {**inputs, "valid": np.stack(valid)})

    def forward(self, model: nn.Module, inputs: dict[str, Tensor]) -> Output:
        """Modalities as one dictionary."""
        features = {str(m): inputs[m] for m in self._model.modalities}
        fused = model(features=features, valid=inputs["valid"], padding=inputs["padding"])
        return Output(fused.prediction, fused.embedding)

    def series(self, track: Track, outputs: Outputs) -> Series:
        """Overlap mean; a frame that no modality saw takes the nearest that one did."""
        seen = np.any([track.series[m].valid for m in self._model.modalities], axis=0)
        return _refill(_frame_series(track, outputs, seen, self._model.hidden))


class RaavTask(TrackTask):
    """RAAV on segments of frames with their audio blocks.

    Args:
        settings: of the model.
        widths: width of each modality's embedding.
    """

    def __init__(self, settings: Raav, widths: Mapping[Modality, int]) -> None:
        """Remember the settings."""
        self._model, self.settings = settings, settings.fit
        self._widths = {str(m): width + 2 for m, width in widths.items()}

    def build(self) -> RAAV:
        """Fresh weights."""
        return RAAV(self._model, self._widths)

    def windows(self, track: Track) -> list[Window]:
        """Frames of every segment that has any; none if no modality ever saw the person."""
        if not _seen(track).any():
            return []
        return [(int(a), int(b)) for a, b in track.segments.ranges if b > a]

    def example(self, track: Track, window: Window, length: int) -> Example:
        """Face and behaviour per frame, audio per block."""
        assert track.blocks is not None
        segment = int(np.flatnonzero((track.segments.ranges == window).all(axis=1))[0])
        blocks = track.blocks
        valid = [_pad(track.series[m].valid[slice(*window)], length) for m in ("face", "behavior")]
        inputs = {
            "face": _pad(_features(track.series["face"], window), length),
            "behavior": _pad(_features(track.series["behavior"], window), length),
            "audio": np.concatenate([blocks.embedding[segment], blocks.prediction[segment]], axis=1).astype(np.float32),
            "visual_valid": np.stack(valid),
            "audio_valid": blocks.valid[segment],
        }
        return _frame_example(track, window, length, inputs)

    def series(self, track: Track, outputs: Outputs) -> Series:
        """Overlap mean, nearest fill."""
        return _refill(_frame_series(track, outputs, _seen(track), self._model.hidden))

    def predict(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
        """Smoothed over time, then clipped to [-1, 1]."""
        series = self.series(track, outputs)
        widths = (self._model.smooth_valence_frames, self._model.smooth_arousal_frames)
        smoothed = [timeline.moving_average(series.prediction[:, i], width) for i, width in enumerate(widths)]
        return np.clip(np.stack(smoothed, axis=1), -1, 1)


class GradaTask(Task):
    """The frame encoder on single pictures: expressions, valence and arousal, whichever a picture is labelled with.

    The prediction of a picture is ``[valence, arousal, expression logits]``, its target ``[valence, arousal,
    expression]`` with NaN for what it has not.

    Args:
        run: the run.

    Source: paper, section 3.2.
    """

    def __init__(self, run: EncoderRun) -> None:
        """Remember the settings."""
        self._run, self.settings = run, run.fit

    def build(self) -> Grada:
        """Fresh weights, the trunk's from a file where one is named."""
        model = Grada(self._run.shape)
        if self._run.trunk:
            load_trunk(model, weights.file(self._run.trunk))
        return model

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The trunk at its own rate; embedding and heads at the other."""
        assert isinstance(model, Grada)
        trunk = {id(p) for p in model.trunk.parameters()}
        return [
            {"params": [p for p in model.parameters() if id(p) not in trunk], "lr": self.settings.learning_rate},
            {"params": list(model.trunk.parameters()), "lr": self._run.trunk_learning_rate},
        ]

    def copies(self, item: Images) -> float:
        """The dataset's weight."""
        return self._run.dataset_weights.get(item.dataset, 1.0)

    def windows(self, item: Images) -> list[Window]:
        """Every picture by itself."""
        return [(i, i + 1) for i in range(len(item.uris))]

    def trains_on(self, item: Images, window: Window) -> bool:
        """Every picture has a label."""
        return True

    def example(self, item: Images, window: Window, length: int) -> Example:
        """One face, cut out and letterboxed.

        Raises:
            ImageError: the picture cannot be used.
        """
        uri, sides = item.uris[window[0]], item.box[slice(*window)]
        picture = read_image(uri)
        box = np.array([[0.0, 0.0, 1.0, 1.0]])
        if not np.isnan(sides).any():
            box = grow(sides / (picture.shape[1::-1] * 2), self._run.box_growth)
            if (box[:, 2:] <= box[:, :2]).any():
                raise ImageError(f"{uri}: its box lies outside of it")
        crop = letterbox(picture, box, self._run.shape.crop_px)[0]
        return Example({"crops": crop}, item.targets[slice(*window)], np.array([True]))

    def blank(self) -> Example:
        """What stands for a picture that cannot be used: black, and not annotated."""
        side = self._run.shape.crop_px
        crop = np.zeros((side, side, 3), dtype=np.uint8)
        return Example({"crops": crop}, np.full((1, 3), np.nan), np.array([False]))

    def augment(self, inputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """The usual changes of a face's picture."""
        return {"crops": augment_crops(inputs["crops"], self._run.augment, generator)}

    def forward(self, model: nn.Module, inputs: dict[str, Tensor]) -> Output:
        """Each picture is a window of one point."""
        encoded = model(normalise(inputs["crops"]))
        outputs = torch.cat([encoded.affect, encoded.expression], dim=1)
        return Output(outputs[:, None], encoded.embedding[:, None])

    def losses(
        self, gold: Float[Tensor, "B T 3"], prediction: Float[Tensor, "B T outputs"], annotated: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, ""] | None, Float[Tensor, ""] | None]:
        """Loss of valence and arousal, and of expressions; None for what nothing in the batch is labelled with."""
        has_affect = annotated & ~gold[..., 0].isnan()
        has_expression = annotated & ~gold[..., 2].isnan()
        affect = hybrid_loss(gold[..., :2], prediction[..., :2], has_affect, self.settings.loss)
        if not has_expression.any():
            return affect, None
        classes = gold[has_expression][:, 2].long()
        return affect, nn.functional.cross_entropy(prediction[has_expression][:, 2:].float(), classes)

    def loss(
        self, gold: Float[Tensor, "B T 3"], prediction: Float[Tensor, "B T outputs"], annotated: Bool[Tensor, "B T"]
    ) -> Float[Tensor, ""] | None:
        """Weighted sum of both tasks' losses, over the pictures that have the label."""
        weighted = zip(
            (self._run.affect_weight, self._run.expression_weight),
            self.losses(gold, prediction, annotated),
            strict=True,
        )
        parts = [weight * value for weight, value in weighted if value is not None]
        return torch.stack(parts).sum() if parts else None

    def predict(self, item: Images, outputs: Outputs) -> Float[ndarray, "images 2"]:
        """Valence and arousal of every picture."""
        return np.concatenate(outputs.predictions)[:, :2]


def save_weights(model: nn.Module) -> bytes:
    """A model's weights as safetensors."""
    from safetensors.torch import save

    return save({name: value.contiguous().cpu() for name, value in model.state_dict().items()})


def load_weights(model: nn.Module, content: bytes) -> nn.Module:
    """Read weights that :func:`save_weights` wrote into a model of the same shape, ready for inference."""
    from safetensors.torch import load

    model.load_state_dict(load(content))
    return model.eval()


def _pad(values: ndarray, length: int) -> ndarray:
    """Zeros at the end of the first axis; models mask them."""
    return np.concatenate([values, np.zeros((length - len(values), *values.shape[1:]), values.dtype)])


def _frame_windows(num_frames: int, window: int, hop: int) -> list[Window]:
    return [(start, min(start + window, num_frames)) for start in timeline.window_starts(num_frames, window, hop)]


def _frame_example(track: Track, window: Window, length: int, inputs: dict[str, ndarray]) -> Example:
    padding = np.arange(length) >= window[1] - window[0]
    gold, annotated = track.gold[slice(*window)], track.annotated[slice(*window)]
    return Example({**inputs, "padding": padding}, _pad(np.nan_to_num(gold), length), _pad(annotated, length))


def _features(series: Series, window: Window) -> Float[ndarray, "T D"]:
    """``[embedding; prediction]``."""
    parts = [series.embedding[slice(*window)], series.prediction[slice(*window)]]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _seen(track: Track) -> Bool[ndarray, " frames"]:
    """Frames at which any modality saw or heard the person."""
    return np.any([series.valid for series in track.series.values()], axis=0)


def _overlap(num_points: int, outputs: Outputs, width: int) -> Float[ndarray, "points D"]:
    """Overlap mean of ``[embedding; prediction]`` over windows."""
    cut = [
        (start, np.concatenate([states, values], axis=1)[: end - start])
        for (start, end), values, states in zip(*outputs, strict=True)
    ]
    return timeline.overlap_mean(num_points, cut, width + 2)[0]


def _frame_series(track: Track, outputs: Outputs, valid: Bool[ndarray, " frames"], width: int) -> Series:
    joined = _overlap(track.num_frames, outputs, width)
    return Series(joined[:, :-2], joined[:, -2:], valid)


def _refill(series: Series) -> Series:
    """A frame that no modality saw takes what the nearest one that did has."""
    if not series.valid.any():
        return series
    nearest = timeline.nearest_valid(series.valid)
    return Series(series.embedding[nearest], series.prediction[nearest], series.valid)


def _series(joined: Float[ndarray, "frames D"], covered: Bool[ndarray, " frames"]) -> Series:
    """Split ``[embedding; prediction]``, a frame that nothing covers filled from the nearest."""
    filled = joined[timeline.nearest_valid(covered)] if covered.any() else joined
    return Series(filled[:, :-2], filled[:, -2:], covered)
