"""Scores of a frame encoder on labelled pictures, of both of its tasks."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import nn

from affect import concordance
from affect.concordance import Moments, Score
from affect.corpus.images import Images
from affect.face.encoder_task import GradaTask
from affect.learning import batches
from affect.learning.batches import Loader
from affect.progress import say
from affect.settings.names import EXPRESSIONS

NUM_UNITS = 100
"""Units of a dataset without person labels, for the interval."""


class EncoderScores(NamedTuple):
    """Scores of an encoder on labelled pictures.

    Args:
        affect_loss: loss of valence and arousal over all pictures at once; NaN if no picture has these labels.
        expression_loss: cross-entropy; NaN if no picture has an expression label.
        macro_f1: mean F1 of the expressions that occur; NaN if no picture has an expression label.
        score: CCC of valence, arousal and their mean with an interval over people, or over parts of the pictures
            without person labels; None if no picture has labels of valence and arousal.
    """

    affect_loss: float
    expression_loss: float
    macro_f1: float
    score: Score | None

    def as_json(self) -> dict[str, Any]:
        """Numbers by name; null for unknown ones."""
        score = self.score and {name: _number(value) for name, value in asdict(self.score).items()}
        return {name: _number(value) for name, value in self._asdict().items() if name != "score"} | {"score": score}


def judge(
    task: GradaTask, model: nn.Module, items: Sequence[Images], device: torch.device, loader: Loader
) -> EncoderScores:
    """Runs a model on labelled pictures and scores it.

    Args:
        task: builds the batches and the losses.
        model: an encoder.
        items: the pictures.
        device: device of the model.
        loader: makes the batches.
    """
    outputs = [np.concatenate(out.predictions) for out in batches.run_all(task, model, items, device, loader)]
    predicted = np.concatenate(outputs)
    gold = np.concatenate([item.targets for item in items])
    tensors = [torch.from_numpy(values.astype(np.float32))[None] for values in (gold, predicted)]
    losses = task.losses(tensors[0], tensors[1], torch.ones(1, len(gold), dtype=torch.bool))
    units: dict[str, list[Moments]] = {}
    for item, out in zip(items, outputs, strict=True):
        for unit, part in _units(item):
            units.setdefault(unit, []).append(Moments.of(item.gold[part], out[part, :2]))
    moments = [concordance.merge(parts) for parts in units.values()]
    score = concordance.score(moments) if any(part.count for part in moments) else None
    f1 = _macro_f1(gold[:, 2], predicted[:, 2:].argmax(axis=1))
    labelled = ~np.isnan(gold[:, [0, 2]]).all(axis=0)
    affect_loss, expression_loss = (
        float(loss) if known else np.nan for loss, known in zip(losses, labelled, strict=True)
    )
    return EncoderScores(affect_loss, expression_loss, f1, score)


def _units(item: Images) -> list[tuple[str, slice]]:
    """Units of the interval, each left out as a whole: a person, or a hundredth of pictures without person labels."""
    if item.name != item.dataset:
        return [(item.name, slice(None))]
    return [(f"{item.name} {i}", slice(i, None, NUM_UNITS)) for i in range(min(NUM_UNITS, len(item.uris)))]


def _macro_f1(gold: ndarray, predicted: ndarray) -> float:
    """Mean F1 of the expressions that occur in the gold labels; not worth a dependency on torchmetrics."""
    scores = []
    for number in range(len(EXPRESSIONS)):
        real, positive = gold == number, (predicted == number) & ~np.isnan(gold)
        if real.any():
            scores.append(2 * float((real & positive).sum()) / float(real.sum() + positive.sum()))
    return float(np.mean(scores)) if scores else float("nan")


def kind_of_units(items: Sequence[Images]) -> str:
    """Kind of the interval's units, in words: people, parts of the pictures, or both."""
    annotated = [item for item in items if not np.isnan(item.gold).any(axis=1).all()]
    kinds = {"people" if item.name != item.dataset else "parts of the pictures" for item in annotated}
    return " and ".join(sorted(kinds, reverse=True))


def print_scores(name: str, before: EncoderScores, after: EncoderScores, units: str) -> None:
    """Prints scores before and after training.

    Args:
        name: ``development`` or ``held_out``.
        before: scores of the untrained encoder.
        after: scores of the trained encoder.
        units: from :func:`kind_of_units`.
    """
    selected = " (selected on it)" if name == "development" else ""
    say(f"train grada: {name.replace('_', '-')} people{selected}, before -> after training")
    say(f"  valence and arousal loss {before.affect_loss:.3f} -> {after.affect_loss:.3f}")
    say(f"  expression cross-entropy {before.expression_loss:.3f} -> {after.expression_loss:.3f}")
    say(f"  expression macro F1      {before.macro_f1:.3f} -> {after.macro_f1:.3f}")
    for index, dimension in enumerate(("valence", "arousal", "mean")):
        if before.score and after.score:
            first, last = (s.text(index, units) for s in (before.score, after.score))
            say(f"  CCC {dimension:<8} {first} -> {last}, 95 % over {after.score.num_units} {units}")


def _number(value: Any) -> Any:  # noqa: ANN401 -- a number or an array of them
    """A number or an array for JSON; null for NaN."""
    if np.ndim(value):
        return [_number(part) for part in value]
    return None if np.isnan(value) else float(value)
