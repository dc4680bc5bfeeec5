"""Valence and arousal for every frame of a video, from face, behaviour and voice, on one laptop or a Ray cluster.

    import affect
    table = affect.predict("talk.mp4", runs="demo/runs", recipe="demo").to_pandas()

Axis letters of tensor shapes, everywhere: B windows of a batch, T frames (or segments, or blocks) of a window,
S segments, K audio blocks, M modalities, E experts, D input width, H hidden width, N state width,
2 = (valence, arousal), valence first, both in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from affect import torchvision_cpu

if TYPE_CHECKING:
    import pyarrow

torchvision_cpu.install()


def predict(
    videos: str | Sequence[str],
    *,
    recipe: str | None = None,
    runs: str | None = None,
    store: str | None = None,
    out: str | None = None,
    people: Literal["all", "main", "left", "right"] = "all",
) -> pyarrow.Table:
    """Predicts valence and arousal of every frame and person of videos.

    Extracts missing features on the Ray cluster of ``RAY_ADDRESS``, or on one that it starts, and stores them with the
    predictions for later calls. All settings, weights included, are those of the models' training.

    Args:
        videos: one video, a folder, a pattern such as ``talks/*.mp4``, a bucket prefix, or several of these.
        recipe: name of a recipe (:func:`affect.modalities.recipes`), or of another training in ``runs``; if not
            given, the only training there, or ``demo`` without ``runs``.
        runs: folder of trained models; the recipe's default in the working directory if None.
        store: feature store; the one that the models were trained from if None.
        out: folder of the tables; a folder in the store if None. No report is made.
        people: all people, the main person, or the left or right one of two.

    Returns:
        Predictions (:func:`affect.storage.schema.predictions`), one row per frame and person of all usable videos.

    Raises:
        ValueError: there is no such training or video, or nothing can be predicted.
    """
    from affect.pipeline.notebook import predict

    return predict(videos, recipe=recipe, runs=runs, store=store, out=out, people=people)
