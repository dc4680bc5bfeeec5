"""Task of the linear map: whole tracks of encoders' ratings in, valence and arousal of every frame out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from affect import timeline
from affect.concordance import Moments, Score, merge
from affect.corpus.track import Series, Track
from affect.fusion import calibration
from affect.fusion.calibration import Calibration, Choice
from affect.fusion.linear import LinearMap, mean_of_valid
from affect.fusion.task import FusionTask
from affect.learning import batches
from affect.learning.batches import Arrays, Example, Outputs, Window
from affect.learning.centering import centred
from affect.learning.fit import Fitted
from affect.learning.folds import fold_groups, of_same_people
from affect.learning.task import frame_example
from affect.learning.training import Epoch
from affect.progress import say
from affect.settings.models import Linear
from affect.settings.names import Centering
from affect.settings.training import Fit

CPU = torch.device("cpu")


class LinearTask(FusionTask):
    """Fits and runs the linear map.

    Args:
        settings: settings of the map.
        widths: number of ratings of each modality.
    """

    def __init__(self, settings: Linear, widths: Mapping[str, int]) -> None:
        """Stores settings and widths."""
        self._model, self._widths = settings, {m: widths[m] for m in settings.modalities}
        self.settings = Fit(batch_size=1, precision="float32")
        self.modalities = self.evidence = self.sources = settings.modalities
        self.hidden = 0

    def prepare(self, track: Track) -> Track:
        """The track with each modality's ratings as its series."""
        return replace(track, series={m: _series(track.ratings[m]) for m in self.modalities})

    def build(self) -> LinearMap:
        """The untrained map."""
        return LinearMap(self._model, self._widths)

    def windows(self, track: Track) -> list[Window]:
        """The whole track; none without any evidence."""
        return [(0, track.num_frames)] if self.seen(track).any() else []

    def example(self, track: Track, window: Window) -> Example:
        """Ratings with and without the person's median, validity, frame rate."""
        series = [track.series[m] for m in self.modalities]
        inputs: dict[str, Arrays] = {
            "ratings": tuple(s.embedding for s in series),
            "centered": tuple(centred(s.embedding, s.valid, "median") for s in series),
            "valid": np.stack([s.valid for s in series], axis=1),
        }
        fps = timeline.Timestamps(track.time_s).fps
        return frame_example(track, window, inputs, {"fps": np.array(fps, dtype=np.float32)})

    def predict(self, track: Track, outputs: Outputs) -> Float[ndarray, "frames 2"]:
        """Predictions, clipped to [-1, 1]."""
        return np.clip(self.series(track, outputs).prediction, -1, 1)

    def series(self, track: Track, outputs: Outputs) -> Series:
        """Predictions of every frame."""
        [prediction] = outputs.predictions
        return Series(np.zeros((track.num_frames, 0)), prediction, self.seen(track))

    def solve(self, training: Sequence[Track], development: Sequence[Track]) -> Fitted:
        """Fits the map on the training tracks, and prints what it gains.

        Args:
            training: tracks with ratings.
            development: tracks that are scored; without any, the score over folds of training videos is given.

        Raises:
            ValueError: no training track has annotated frames with ratings.
        """
        tracks = [track for track in training if self.windows(track) and track.annotated.any()]
        if not tracks:
            raise ValueError(f"nothing to learn from: {self.describe_samples(training)}")
        groups = of_same_people((track.video, track.shows) for track in tracks)
        found = self._calibrate(tracks, groups)
        model = self.build()
        self._load(model, found)
        self._describe(found, len(groups))
        ccc, scored_on = np.full(3, np.nan), "nothing"
        if development:
            ccc, scored_on = self._score(model, development), "development (nothing selected on it)"
        elif found.score is not None:
            ccc, scored_on = found.score.ccc, "folds of the training videos"
        epoch = Epoch(0, float(1 - ccc[:2].mean()), ccc, 0.0, 0.0, 0)
        return Fitted(model.eval(), [], epoch, scored_on)

    def _calibrate(self, tracks: Sequence[Track], groups: Sequence[set[str]]) -> Calibration:
        """Selects and fits the maps of both channels."""
        videos = sorted({track.video for track in tracks})
        grid: dict[Choice, ndarray] = {}
        for choice in calibration.choices(self._model.smooth_s):
            of_video: dict[str, ndarray] = dict.fromkeys(videos, np.zeros(()))
            for track in tracks:
                s = calibration.moments(self._inputs(track, choice), track.gold)
                of_video[track.video] = of_video[track.video] + s
            grid[choice] = np.stack([of_video[video] for video in videos])
        sizes = {video: sum(track.num_frames for track in tracks if track.video == video) for video in videos}
        folds = [[videos.index(name) for name in fold] for fold in self._folds(sizes, groups)]
        return calibration.calibrate(grid, folds, self._model.ridge, self._untrained(tracks, videos))

    def _folds(self, sizes: Mapping[str, int], groups: Sequence[set[str]]) -> list[set[str]]:
        """Folds of videos, one for all if all show the same people."""
        return fold_groups(sizes, groups, min(self._model.folds, len(groups))) if len(groups) > 1 else [set(sizes)]

    def _inputs(self, track: Track, choice: Choice) -> Float[ndarray, "frames D"]:
        """Inputs u of the map: ratings and presence of each modality, after the centred mean."""
        series = [track.series[m] for m in self.modalities]
        how: Centering = "median" if choice.centered else "none"
        ratings = [centred(s.embedding, s.valid, how) * s.valid[:, None] for s in series]
        u = np.concatenate([*ratings, np.stack([s.valid for s in series], axis=1)], axis=1)
        width = choice.smooth_s * timeline.Timestamps(track.time_s).fps
        return mean_of_valid(u, self.seen(track), width)

    def _load(self, model: LinearMap, found: Calibration) -> None:
        """Writes solved maps into the model."""
        num = sum(self._widths.values())
        for channel, (choice, solved) in enumerate(zip(found.choices, found.maps, strict=True)):
            model.weight.data[channel] = torch.from_numpy(solved.weight[:num]).float()
            model.bias.data[channel] = torch.from_numpy(solved.weight[num:]).float()
            model.offset.data[channel] = solved.offset
            model.smooth_s.data[channel] = choice.smooth_s
            model.centered.data[channel] = float(choice.centered)
        model.trained.data[:] = 1

    def _untrained(self, tracks: Sequence[Track], videos: Sequence[str]) -> list[Moments]:
        """Moments of the untrained map by video; none if an encoder does not rate valence and arousal."""
        if not all(any(np.isfinite(t.ratings[m][:, :2]).all(axis=1).any() for t in tracks) for m in self.modalities):
            return []
        model, parts = self.build(), dict[str, list[Moments]]()
        for track in tracks:
            parts.setdefault(track.video, []).append(self._moments(model, track))
        return [merge(parts[video]) for video in videos]

    def _moments(self, model: LinearMap, track: Track) -> Moments:
        return Moments.of(track.gold, self.predict(track, batches.run(self, model, track, CPU)))

    def _score(self, model: LinearMap, tracks: Sequence[Track]) -> Float[ndarray, " 3"]:
        seen = [self._moments(model, track) for track in tracks if self.windows(track)]
        ccc = np.nan_to_num(merge(seen).ccc(), nan=0.0) if seen else np.zeros(2)
        return np.append(ccc, ccc.mean())

    def _describe(self, found: Calibration, num_groups: int) -> None:
        """Prints what was selected, the score over folds and the gain."""
        for name, choice in zip(("valence", "arousal"), found.choices, strict=True):
            centred = "the person's median is subtracted" if choice.centered else "as they are"
            say(f"linear: {name}: ratings {centred}, centred mean of {choice.smooth_s:g} s (selected by folds)")
        if found.score is None:
            say(f"linear: {num_groups} videos with labels are too few to say what it gains: label three or more people")
            return
        say(f"linear: CCC over folds, each video by a map that never saw it: {_words(found.score)}")
        if found.gain is not None:
            say(f"linear: minus that of the untrained ratings: {_words(found.gain, '{:+.3f}')}")


def _words(score: Score, form: str = "{:.3f}") -> str:
    """A score with its intervals."""
    return ", ".join(f"{name} {score.text(i, form=form)}" for i, name in enumerate(("valence", "arousal", "mean")))


def _series(ratings: Float[ndarray, "frames K"]) -> Series:
    """Ratings as a series: 0 where there are none."""
    valid: Bool[ndarray, " frames"] = np.isfinite(ratings).any(axis=1)
    values = np.nan_to_num(ratings, nan=0.0)
    return Series(values, values[:, :2], valid)
