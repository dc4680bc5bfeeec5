"""Valence and arousal for every frame of a video, from face, behaviour and voice, on one laptop or a Ray cluster.

    import affect
    table = affect.predict("talk.mp4", recipe="demo").to_pandas()

Axis letters of tensor shapes, everywhere: B windows of a batch, T frames (or segments, or blocks) of a window,
S segments, K audio blocks, M modalities, E experts, D input width, H hidden width, N state width,
2 = (valence, arousal), valence first, both in [-1, 1].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from affect import torchvision_cpu

if TYPE_CHECKING:
    import pyarrow

torchvision_cpu.install()


def predict(
    videos: str,
    *,
    recipe: str = "demo",
    runs: str | None = None,
    store: str | None = None,
    out: str | None = None,
    people: Literal["all", "main", "left", "right"] = "all",
) -> pyarrow.Table:
    """Predict valence and arousal of every frame and person of videos.

    Extracts what is missing, on the Ray cluster of ``RAY_ADDRESS`` or on one that it starts, and keeps everything, so
    that asking again is quick. Settings other than a recipe's are for ``jobs/predict.py``.

    Args:
        videos: one video, a folder, a pattern such as ``talks/*.mp4``, or a bucket prefix.
        recipe: name of one of :data:`affect.recipes.RECIPES`.
        runs: where its models are; the recipe's place if not given, as for the others.
        store: where features go.
        out: where tables go; a folder in the store if not given. There is no report.
        people: everyone who is seen, the main person, or the left or right one of two.

    Returns:
        Rows of :data:`affect.schema.PREDICTIONS`, of the videos that can be used.

    Raises:
        ValueError: there is no such recipe, video or trained model, or nothing can be predicted.
    """
    from affect.pipeline.notebook import predict

    return predict(videos, recipe=recipe, runs=runs, store=store, out=out, people=people)
