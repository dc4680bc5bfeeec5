"""Numbers to HTML: one page per video, an index of them, the curves of a training."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray

from affect.face.overlay import COLORS
from affect.modalities import MODALITIES
from affect.progress import format_duration
from affect.report.figures import drawn, svg, template, text
from affect.report.series import DIMENSIONS, Moment, column, person_data, shows_person, thinned

SPARK_POINTS = 60
"""Points of the small curves of an index."""
COLUMNS = ("video", "status", "people", "length", "seen", "valence", "arousal")
"""Of the index's table."""


def video_page(
    row: Mapping[str, Any],
    table: pa.Table,
    film: str | None,
    moments: Sequence[tuple[Moment, str]],
    gold: Mapping[str, Float[ndarray, "_ 2"]],
    scores: Mapping[str, tuple[float, float]],
    caveat: str,
) -> str:
    """The page of one video.

    Args:
        row: its row of :data:`affect.storage.schema.OUTCOMES`.
        table: its predictions.
        film: name of its film beside the page; None if there is none.
        moments: what stands out, each with a JPEG as base64; empty for no picture.
        gold: annotations by track, of those that are annotated.
        scores: CCC of valence and arousal by track, of the same.
        caveat: what has to be said first.
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
    words = {t: tuple(said(v) for v in pair) for t, pair in scores.items()}
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
    """Rows of each person, in order."""
    names = table["track"].to_numpy(zero_copy_only=False)
    return [table.filter(pa.array(names == name)) for name in table["track"].unique().to_pylist()]


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


def index_row(row: Mapping[str, Any], table: pa.Table, page: str | None) -> dict[str, Any]:
    """What the index says of a video; plain JSON.

    Args:
        row: of :data:`affect.storage.schema.OUTCOMES`.
        table: its predictions.
        page: where its page lies, from the index.
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
        found[dimension] = round(float(np.mean(list(means.values()))), 3) if means else None  # what the table sorts by
        found[f"{dimension}_of_each"] = [(name if len(people) > 1 else "", f"{m:+.2f}") for name, m in means.items()]
        found["spark"][dimension] = [
            thinned(column(rows, dimension), max(1, rows.num_rows // SPARK_POINTS)) for rows in people[:2]
        ]
    return found


def index_page(
    title: str,
    rows: Sequence[dict[str, Any]],
    facts: Sequence[tuple[str, str]],
    settings: str,
    reasons: Sequence[tuple[str, int]],
    scores: Sequence[Mapping[str, Any]],
    judged: str,
    figures: Sequence[tuple[str, str, str]],
    caveat: str,
) -> str:
    """The index of all videos.

    Args:
        title: of the page.
        rows: from :func:`index_row`.
        facts: what it was made with.
        settings: all settings, to be read.
        reasons: why something is missing, with how often.
        scores: rows of :data:`affect.storage.schema.SCORES`, if there are annotations.
        judged: what the scores are of.
        figures: name, SVG and caption.
        caveat: what has to be said first.
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
        judged=judged,
        figures=figures,
        caveat=caveat,
        columns=names,
        said=said,
    )


def _sparks(values: Mapping[str, list[list[float | None]]]) -> dict[str, str]:
    """Small curves in [-1, 1], one per person."""
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
    """The curves of a training.

    Args:
        title: of the page.
        models: each with title, address, best, settings and history, as the model's files have them.
        caveat: what has to be said first.
    """
    figures = []
    with drawn():
        for model in models:
            history = model["history"]
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
                f"Left the loss, right CCC after each epoch; the line is epoch {model['best']['epoch']}, the best."
            )
            figures.append((model["title"], svg(figure), caption))
    shown = [{**model, "settings": json.dumps(model["settings"], indent=1)} for model in models]
    return template("training.html").render(title=title, models=shown, figures=figures, caveat=caveat)


def said(value: float, form: str = "{:.3f}") -> str:
    """A number, to be read; a dash where there is none."""
    return form.format(value) if np.isfinite(value) else "–"
