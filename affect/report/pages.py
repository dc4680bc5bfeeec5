"""HTML pages: one per video, an index of all videos, the curves of a training."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray

from affect.face.overlay import COLORS
from affect.modalities import MODALITIES
from affect.progress import format_duration
from affect.report.figures import chart_style, svg, template, text
from affect.report.series import DIMENSIONS, Moment, column, person_data, shows_person, thinned

SPARK_POINTS = 60
"""Points of a small curve in the index."""
COLUMNS = ("video", "status", "people", "length", "seen", "valence", "arousal")
"""Columns of the index's table."""


def video_page(
    row: Mapping[str, Any],
    table: pa.Table,
    film: str | None,
    moments: Sequence[tuple[Moment, str]],
    gold: Mapping[str, Float[ndarray, "_ 2"]],
    scores: Mapping[str, tuple[float, float]],
    caveat: str,
) -> str:
    """HTML of one video's page.

    Args:
        row: row of the video in :data:`affect.storage.schema.OUTCOMES`.
        table: predictions of the video.
        film: file name of its film in the page's folder; None if there is none.
        moments: strongest moments, each with a JPEG in base64 (empty for no picture).
        gold: annotations of annotated tracks.
        scores: CCC of valence and arousal of annotated tracks.
        caveat: warning at the top of the page; empty for none.
    """
    people = [person_data(rows, gold.get(rows["track"][0].as_py())) for rows in by_track(table)]
    shown = [m for m in MODALITIES if any(m in person["seen"] for person in people)]
    summary = [
        {
            "name": person["name"],
            "track": person["track"],
            **{d: _signed(person["mean"][d]) for d in DIMENSIONS},
            "seen": {m: person["seen"].get(m) for m in shown},
        }
        for person in people
    ]
    data = {
        "people": people,
        "end": max((person["end"] for person in people), default=0.0),
        "colors": list(COLORS),
    }
    words = {t: tuple(format_score(v) for v in pair) for t, pair in scores.items()}
    return template("video.html").render(
        title=f"{row['video']}: valence and arousal",
        stem=row["video"],
        row=row,
        film=film,
        moments=moments,
        data=data,
        people=summary,
        shown=shown,
        words={name: modality.evidence for name, modality in MODALITIES.items()},
        scores={person["track"]: words.get(person["track"], ("", "")) for person in people} if scores else {},
        caveat=caveat,
        script=text("video.js"),
    )


def by_track(table: pa.Table) -> list[pa.Table]:
    """Splits rows by track, in order of appearance."""
    names = table["track"].to_numpy(zero_copy_only=False)
    return [table.filter(pa.array(names == name)) for name in table["track"].unique().to_pylist()]


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


def index_row(row: Mapping[str, Any], table: pa.Table, page: str | None) -> dict[str, Any]:
    """Entry of a video in the index, as plain JSON.

    Args:
        row: row of the video in :data:`affect.storage.schema.OUTCOMES`.
        table: predictions of the video.
        page: path of its page, relative to the index; None without a page.
    """
    people = by_track(table)
    known = table["face_valid"].null_count < table.num_rows
    valid = (table["face_valid"].fill_null(False) if known else table["valid"]).to_numpy(zero_copy_only=False)
    found: dict[str, Any] = {**row, "page": page, "spark": {}, "ccc": None}
    found["coverage"] = float(valid.mean()) if len(valid) else 0.0
    for dimension in DIMENSIONS:
        means = {
            rows["person"][0].as_py(): float(np.mean(column(rows, dimension)[s]))
            for rows in people
            if (s := shows_person(rows)).any()
        }
        found[dimension] = round(float(np.mean(list(means.values()))), 3) if means else None  # sort key of the table
        found[f"{dimension}_of_each"] = [(name if len(people) > 1 else "", f"{m:+.2f}") for name, m in means.items()]
        found["spark"][dimension] = [
            thinned(column(rows, dimension), max(1, rows.num_rows // SPARK_POINTS)) for rows in people[:2]
        ]
    return found


class ScoreSection(NamedTuple):
    """Scores against annotations, for the index.

    Args:
        title: names of the predictions and of the labels.
        rows: rows of :data:`affect.storage.schema.SCORES`.
        figures: title, SVG and caption of each chart.
    """

    title: str
    rows: Sequence[Mapping[str, Any]]
    figures: Sequence[tuple[str, str, str]]


def index_page(
    title: str,
    rows: Sequence[dict[str, Any]],
    facts: Sequence[tuple[str, str]],
    settings: str,
    reasons: Sequence[tuple[str, int]],
    scores: ScoreSection | None,
    caveat: str,
) -> str:
    """HTML of the index of all videos.

    Args:
        title: title of the page.
        rows: entries of the videos, from :func:`index_row`.
        facts: names and values of versions and models used.
        settings: all settings, as text.
        reasons: reasons for missing evidence, with their counts.
        scores: scores against annotations; None without annotations.
        caveat: warning at the top of the page; empty for none.
    """
    shown = [{**row, "length": format_duration(row["duration_s"]), "spark": _sparks(row["spark"])} for row in rows]
    frames = sum(row["frames"] for row in rows)
    covered = sum(row["coverage"] * row["frames"] for row in rows)
    total: dict[str, Any] = {
        "people": sum(row["people"] for row in rows),
        "frames": frames,
        "length": format_duration(sum(row["duration_s"] for row in rows)),
        "coverage": f"{100 * covered / frames:.0f} %" if frames else "none",
        **{status: sum(row["status"] == status for row in rows) for status in ("ok", "degraded", "failed")},
    }
    names = [*COLUMNS, *(["CCC valence", "CCC arousal"] if scores else []), "reason"]
    return template("index.html").render(
        title=title,
        rows=shown,
        total=total,
        facts=facts,
        settings=settings,
        reasons=reasons,
        scores=scores,
        caveat=caveat,
        columns=names,
        format_score=format_score,
    )


def _sparks(values: Mapping[str, list[list[float | None]]]) -> dict[str, str]:
    """SVG of small curves in [-1, 1], one per person, by dimension."""
    found = {}
    for dimension, curves in values.items():
        paths = ""
        for number, curve in enumerate(curves):
            steps = max(1, len(curve) - 1)
            points = [f"{100 * i / steps:.1f} {1 - v:.2f}" for i, v in enumerate(curve) if v is not None]
            dash = ' stroke-dasharray="3 2"' if number else ""
            paths += f'<path d="M{"L".join(points)}"{dash}/>' if points else ""
        found[dimension] = (
            '<svg class="spark" viewBox="0 0 100 2" preserveAspectRatio="none" style="display:inline-block" '
            f'aria-hidden="true"><line x1="0" x2="100" y1="1" y2="1"/>{paths}</svg>'
        )
    return found


def training_page(title: str, models: Sequence[Mapping[str, Any]], caveat: str) -> str:
    """HTML of a training's page: loss and CCC per epoch.

    Args:
        title: title of the page.
        models: title, address, best, scored_on, settings and history of each model, as in its files.
        caveat: warning at the top of the page; empty for none.
    """
    figures = []
    with chart_style():
        for model in models:
            history = model["history"]
            if not history:  # solved in closed form
                continue
            epochs = [epoch["epoch"] for epoch in history]
            figure = Figure(figsize=(9, 2.8), layout="constrained")
            left, right = figure.subplots(1, 2)
            left.plot(epochs, [epoch["loss"] for epoch in history], color="#444c55")
            left.set_ylabel("training loss")
            for name, style in (("valence", "--"), ("arousal", ":"), ("mean", "-")):
                right.plot(epochs, [epoch[name] for epoch in history], style, label=name, color="#0b62a8")
            right.axvline(model["best"]["epoch"], color="#b3460f", lw=1)
            right.set_ylabel("development CCC")
            right.legend(loc="lower right", frameon=False)
            for axes in (left, right):
                axes.set_xlabel("epoch")
                axes.xaxis.get_major_locator().set_params(integer=True)
                axes.grid(alpha=0.3)
            caption = (
                f"Loss (left), CCC (right) after each epoch; the line is the best epoch, {model['best']['epoch']}."
            )
            figures.append((model["title"], svg(figure), caption))
    shown = [{**model, "settings": json.dumps(model["settings"], indent=1)} for model in models]
    return template("training.html").render(
        title=title, models=shown, figures=figures, caveat=caveat, format_score=format_score
    )


def format_score(value: float, form: str = "{:.3f}") -> str:
    """Text of a score; a dash if it is not finite."""
    return form.format(value) if np.isfinite(value) else "–"
