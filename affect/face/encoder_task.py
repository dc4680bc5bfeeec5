"""How the frame encoder is fed: single pictures."""

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
"""Stands for an expression that a picture is not labelled with."""


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

    def example(self, item: Images, window: Window) -> Example:
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
        return Example({}, item.targets[slice(*window)], np.array([True]), {"crops": crop})

    def blank(self) -> Example:
        """What stands for a picture that cannot be used: black, and not annotated."""
        side = self._run.shape.crop_px
        crop = np.zeros((side, side, 3), dtype=np.uint8)
        return Example({}, np.full((1, 3), np.nan), np.array([False]), {"crops": crop})

    def augment(self, inputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """The usual changes of a face's picture."""
        return {"crops": augment_crops(inputs["crops"], self._run.augment, generator)}

    def forward(self, model: nn.Module, batch: Batch) -> Output:
        """Each picture is a window of one point."""
        encoded = model(normalise(batch.inputs["crops"]))
        outputs = torch.cat([encoded.affect, encoded.expression], dim=1)
        return Output(outputs[:, None], encoded.embedding[:, None])

    def losses(
        self, gold: Float[Tensor, "B T 3"], prediction: Float[Tensor, "B T outputs"], annotated: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Loss of valence and arousal, and of expressions; 0 for what nothing in the batch is labelled with."""
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
        """Weighted sum of both tasks' losses, over the pictures that have the label."""
        affect, expression = self.losses(gold, prediction, annotated)
        return self._run.affect_weight * affect + self._run.expression_weight * expression

    def predict(self, item: Images, outputs: Outputs) -> Float[ndarray, "images 2"]:
        """Valence and arousal of every picture."""
        return np.concatenate(outputs.predictions)[:, :2]
