"""The frame encoder's task: single pictures in, expressions, valence and arousal out."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor, nn

from affect import weights
from affect.concordance import hybrid_loss
from affect.corpus.images import ImageError, Images, read_image
from affect.face.augment import augment as augment_crops
from affect.face.crop import grow, letterbox, normalise
from affect.face.grada import Grada, load_trunk
from affect.layers import Output
from affect.learning.batches import Batch, Example, Outputs, Task, Window
from affect.settings.encoder import EncoderRun

NO_CLASS = -100
"""Class index of a picture without an expression label; the cross-entropy ignores it."""


class GradaTask(Task):
    """Trains GRADA on single pictures, each labelled with an expression, with valence and arousal, or with both.

        loss = w_a L_affect + w_e L_expression

    L_affect is the hybrid CCC loss over pictures with valence and arousal, L_expression the cross-entropy over pictures
    with an expression. The output of a picture is ``[valence, arousal, expression logits]``, its target
    ``[valence, arousal, expression]``, NaN where a label is missing. Each picture is a window of one point.

    Args:
        run: settings of the encoder's training.

    Source: paper (arXiv 2603.13056), section 3.2; spec section 3.3.
    """

    def __init__(self, run: EncoderRun) -> None:
        """Stores the settings."""
        self._run, self.settings = run, run.fit

    def build(self) -> Grada:
        """Builds the model with random weights; the trunk's are read from ``run.trunk`` if given."""
        model = Grada(self._run.shape)
        if self._run.trunk:
            load_trunk(model, weights.file(self._run.trunk))
        return model

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Two groups: embedding and heads at ``fit.learning_rate``, the trunk at ``trunk_learning_rate``."""
        assert isinstance(model, Grada)
        trunk = {id(p) for p in model.trunk.parameters()}
        return [
            {"params": [p for p in model.parameters() if id(p) not in trunk], "lr": self.settings.learning_rate},
            {"params": list(model.trunk.parameters()), "lr": self._run.trunk_learning_rate},
        ]

    def repeats(self, item: Images) -> float:
        """Weight of the picture's dataset: how often its pictures are seen per epoch."""
        return self._run.dataset_weights.get(item.dataset, 1.0)

    def windows(self, item: Images) -> list[Window]:
        """One window per picture."""
        return [(i, i + 1) for i in range(len(item.uris))]

    def trains_on(self, item: Images, window: Window) -> bool:
        """True: every picture has a label."""
        return True

    def example(self, item: Images, window: Window) -> Example:
        """Reads one picture and letterboxes its face.

        Raises:
            ImageError: the picture cannot be decoded, or its box lies outside of it.
        """
        uri, sides = item.uris[window[0]], item.box[slice(*window)]
        picture = read_image(uri)
        box = np.array([[0.0, 0.0, 1.0, 1.0]])
        if not np.isnan(sides).any():
            box = grow(sides / (picture.shape[1::-1] * 2), self._run.box_growth)
            if (box[:, 2:] <= box[:, :2]).any():
                raise ImageError(f"{uri}: its box lies outside of it")
        crop = letterbox(picture, box, self._run.shape.crop_px)[0]
        return Example({}, item.targets[slice(*window)], np.array([True]), {"crops": crop})

    def blank(self) -> Example:
        """Replaces a picture that cannot be used: a black crop, not annotated."""
        side = self._run.shape.crop_px
        crop = np.zeros((side, side, 3), dtype=np.uint8)
        return Example({}, np.full((1, 3), np.nan), np.array([False]), {"crops": crop})

    def augment(self, inputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Applies :func:`affect.face.augment.augment` to the crops."""
        return {"crops": augment_crops(inputs["crops"], self._run.augment, generator)}

    def forward(self, model: nn.Module, batch: Batch) -> Output:
        """Encodes the crops; outputs have a window axis of length 1."""
        encoded = model(normalise(batch.inputs["crops"]))
        outputs = torch.cat([encoded.affect, encoded.expression], dim=1)
        return Output(outputs[:, None], encoded.embedding[:, None])

    def losses(
        self, gold: Float[Tensor, "B T 3"], prediction: Float[Tensor, "B T outputs"], annotated: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """L_affect and L_expression; 0 for a label that no picture of the batch has."""
        has_affect = annotated & ~gold[..., 0].isnan()
        has_expression = annotated & ~gold[..., 2].isnan()
        affect = hybrid_loss(gold[..., :2], prediction[..., :2], has_affect, self.settings.loss)
        classes = torch.where(has_expression, gold[..., 2], NO_CLASS).long().flatten()
        logits = prediction[..., 2:].float().flatten(0, 1)
        entropy = nn.functional.cross_entropy(logits, classes, ignore_index=NO_CLASS, reduction="sum")
        return torch.where(has_affect.any(), affect, 0), entropy / has_expression.sum().clamp(min=1)

    def loss(
        self, gold: Float[Tensor, "B T 3"], prediction: Float[Tensor, "B T outputs"], annotated: Bool[Tensor, "B T"]
    ) -> Float[Tensor, ""]:
        """Weighted sum of both losses."""
        affect, expression = self.losses(gold, prediction, annotated)
        return self._run.affect_weight * affect + self._run.expression_weight * expression

    def predict(self, item: Images, outputs: Outputs) -> Float[ndarray, "images 2"]:
        """Valence and arousal of each picture."""
        return np.concatenate(outputs.predictions)[:, :2]
