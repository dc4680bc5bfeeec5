"""Linear map of the ratings that pretrained encoders give themselves: valence and arousal without training, or little.

Source: ours; the map of an encoder's outputs and the centred mean are those of the HSEmotion notebooks for ABAW.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional

from affect import timeline
from affect.layers import FusionOutput
from affect.settings import models


def mean_of_valid(
    values: Float[ndarray, "frames D"], valid: Bool[ndarray, " frames"], width: float
) -> Float[ndarray, "frames D"]:
    """Centred mean over the valid frames within half a width; a frame with none takes the nearest frame's mean.

        mean over |s - t| <= round((width - 1) / 2) with valid s of x_s

    Args:
        values: one row per frame, finite where valid.
        valid: frames to average over; without any, the result is 0.
        width: in frames, 1 or less for no averaging.
    """
    num, half = len(values), max(0, round((width - 1) / 2))
    if not valid.any():
        return np.zeros_like(values, dtype=np.float64)
    kept = np.where(valid[:, None], values, 0.0).astype(np.float64)
    total = np.concatenate([np.zeros((1, kept.shape[1])), kept.cumsum(axis=0)])
    counted = np.concatenate([[0], valid.cumsum()])
    frames = np.arange(num)
    first, end = (frames - half).clip(min=0), (frames + half + 1).clip(max=num)
    count = counted[end] - counted[first]
    means = (total[end] - total[first]) / count.clip(min=1)[:, None]
    return means[timeline.nearest_valid(count > 0)]


def _fixed(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)


class LinearMap(nn.Module):
    """Valence and arousal of each frame from the ratings of every modality, a whole track at a time.

        y_c(t) = mean over |s - t| <= r_c of  o_c + sum_m g_cm(s) (w_cm . x_cm(s) + b_cm)

    where
        c       valence or arousal
        x_cm    ratings by modality m; minus the person's median over the track if h_c
        g_cm    untrained: prior pi_cm over the sum of the priors of the modalities with evidence at s; trained: 1 with
                evidence, 0 without
        r_c     half the width of the centred mean, over the frames with evidence of any modality

    A frame without evidence within r_c takes the nearest one's value. Untrained, w picks the modality's own valence or
    arousal, b = o = 0. The weights are not trained by gradients: :mod:`affect.fusion.calibration` solves for them.
    """

    def __init__(self, settings: models.Linear, widths: Mapping[str, int]) -> None:
        """Sets the fixed weights.

        Args:
            settings: modalities, priors, width of the mean.
            widths: number of ratings of each modality; the first two are valence and arousal.
        """
        super().__init__()
        modalities = settings.modalities
        sizes = [widths[m] for m in modalities]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        weight = torch.zeros(2, sum(sizes))
        for channel in range(2):
            weight[channel, [start + channel for start in starts]] = 1
        priors = (settings.valence_priors, settings.arousal_priors)
        owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        self.weight = _fixed(weight)
        self.bias = _fixed(torch.zeros(2, len(sizes)))
        self.offset = _fixed(torch.zeros(2))
        self.prior = _fixed(torch.tensor([[of[m] for m in modalities] for of in priors]))  # (2, M)
        self.smooth_s = _fixed(torch.full((2,), settings.smooth_s[0]))
        self.centered = _fixed(torch.zeros(2))  # 1: the person's median is subtracted
        self.trained = _fixed(torch.zeros(1))
        self.owner: Tensor
        self.register_buffer("owner", functional.one_hot(owner).float(), persistent=False)  # (K, M)

    def forward(
        self,
        ratings: Float[Tensor, "B T K"],
        centered: Float[Tensor, "B T K"],
        valid: Bool[Tensor, "B T M"],
        fps: Float[Tensor, " B"],
        padding: Bool[Tensor, "B T"],
    ) -> FusionOutput:
        """Predicts every frame.

        Args:
            ratings: ratings of all modalities, concatenated; 0 without evidence.
            centered: those minus the person's median.
            valid: whether a modality has evidence.
            fps: mean frames per second.
            padding: true past the end of a track.

        Returns:
            Prediction, an embedding of width 0, and each modality's share in the priors, the mean of both channels.
        """
        valid = valid & ~padding[..., None]
        present = valid.to(self.weight.dtype)
        share = self.prior[:, None, None] * present  # (2, B, T, M)
        share = share / share.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
        gate = torch.where(self.trained > 0, present.expand_as(share), share)
        channels = []
        for c in range(2):
            x = torch.where(self.centered[c] > 0, centered, ratings)  # (B, T, K)
            by_modality = (x * self.weight[c]) @ self.owner + self.bias[c]  # (B, T, M)
            value = self.offset[c] + (gate[c] * by_modality).sum(dim=-1)  # (B, T)
            channels.append(self._smoothed(value, valid.any(dim=-1), fps * self.smooth_s[c]))
        prediction = torch.stack(channels, dim=-1)
        return FusionOutput(prediction, prediction[..., :0], share.mean(dim=0))

    def _smoothed(
        self, values: Float[Tensor, "B T"], valid: Bool[Tensor, "B T"], widths: Float[Tensor, " B"]
    ) -> Float[Tensor, "B T"]:
        """Centred mean of each track, of a width in frames."""
        tracks = zip(values.cpu().numpy(), valid.cpu().numpy(), widths.tolist(), strict=True)
        means = [mean_of_valid(track[:, None], seen, width)[:, 0] for track, seen, width in tracks]
        return torch.from_numpy(np.stack(means)).to(values)
