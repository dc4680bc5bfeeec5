"""Templates, styles and SVG charts of the pages."""

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy import ndarray

CELLS = 40
"""Cells of a density along each axis."""


@lru_cache
def text(name: str) -> str:
    """Content of a file in this folder."""
    return resources.files("affect.report").joinpath(name).read_text()


@lru_cache
def template(name: str) -> jinja2.Template:
    """Template of a page; values are HTML-escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(text),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["style"] = text("style.css")
    return environment.get_template(name)


def chart_style() -> AbstractContextManager[Any]:
    """Style of all charts: text is kept as text, and SVG output is deterministic."""
    return rc_context({"svg.fonttype": "none", "svg.hashsalt": "affect", "font.size": 9, "font.family": "sans-serif"})


def svg(figure: Figure) -> str:
    """A figure as an SVG element for HTML."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    written = buffer.getvalue()
    return written[written.index("<svg") :]


def gold_against_predicted(
    gold: Float[ndarray, "frames 2"], predicted: Float[ndarray, "frames 2"]
) -> tuple[str, str, str]:
    """Densities of frames by annotation and prediction, of valence and of arousal.

    Args:
        gold: annotations, NaN for a frame that is not annotated.
        predicted: predictions of the same frames.

    Returns:
        Title, SVG of both charts, and caption.
    """
    picture = ""
    with chart_style():
        for i, name in enumerate(("valence", "arousal")):
            figure = Figure(figsize=(4.2, 3.9), layout="constrained")
            axes = figure.subplots()
            known = ~np.isnan(gold[:, i]) & ~np.isnan(predicted[:, i])
            edges = np.linspace(-1, 1, CELLS + 1)
            counts, _, _ = np.histogram2d(gold[known, i], predicted[known, i], bins=[edges, edges])
            axes.pcolormesh(edges, edges, np.ma.masked_equal(counts.T, 0), cmap="viridis_r", rasterized=False)
            axes.plot([-1, 1], [-1, 1], color="#b3460f", lw=1, ls="--")
            axes.set_xlabel(f"annotated {name}")
            axes.set_ylabel(f"predicted {name}")
            axes.set_aspect("equal")
            axes.grid(alpha=0.3)
            picture += svg(figure)
    caption = "Frames by annotation and prediction, darker where there are more; the dashed line is perfect agreement."
    return "Annotated against predicted", picture, caption


def ranking(scores: Mapping[str, tuple[float, float]]) -> tuple[str, str, str]:
    """Chart of the CCC of every video, best first; of more than 30 videos, the 15 best and 15 worst.

    Args:
        scores: CCC of valence and arousal by video.

    Returns:
        Title, SVG and caption.
    """
    order = sorted(scores, key=lambda name: -np.nansum(scores[name]))
    shown = order if len(order) <= 30 else [*order[:15], *order[-15:]]
    with chart_style():
        figure = Figure(figsize=(5.6, 1.2 + 0.24 * len(shown)), layout="constrained")
        axes = figure.subplots()
        for i, (name, marker, color) in enumerate((("valence", "o", "#0b62a8"), ("arousal", "^", "#b3460f"))):
            axes.scatter([scores[v][i] for v in shown], range(len(shown)), marker=marker, color=color, label=name, s=26)
        axes.set_yticks(range(len(shown)), [v.replace("$", r"\$") for v in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)  # room for whole markers of the first and last video; the best is on top
        axes.set_xlabel("CCC of the video")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)  # above the points
        picture = svg(figure)
    left_out = "" if len(shown) == len(order) else f" The 15 best and 15 worst of {len(order)}."
    return "Each video", picture, f"CCC of valence and arousal within each video.{left_out}"
