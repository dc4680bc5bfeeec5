"""Writes the page of a predicted video."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy import ndarray
from PIL import Image

from affect.corpus import video
from affect.corpus.video import MediaError
from affect.report.films import film_path
from affect.report.pages import by_track, index_row, video_page
from affect.report.series import Moment, moments
from affect.storage import files
from affect.trained.predictions import predictions_schema, read_predictions

MAX_SHOWN = 3
"""Maximum number of people whose strongest moments are shown."""


PICTURE_WIDTH_PX = 320
"""Maximum side of a moment's picture."""


def write_page(
    row: dict[str, Any],
    out: str,
    gold: Mapping[str, ndarray],
    scores: Mapping[str, tuple[float, float]],
    caveat: str,
) -> dict[str, Any]:
    """Writes a video's page; returns its entry in the index."""
    target, page = film_path(out, row["video"]), files.join(out, "report", "videos", f"{row['video']}.html")
    if row["status"] == "failed":  # the index gives the reason; files of an earlier run are out of date
        files.delete(target)
        files.delete(page)
        return {"row": json.dumps(index_row(row, predictions_schema().empty_table(), None))}
    table = read_predictions(files.join(out, f"{row['video']}.parquet"))
    shown = [moment for rows in by_track(table)[:MAX_SHOWN] for moment in moments(rows)]
    pictures = [""] * len(shown)
    name = None
    if files.exists(target):
        name = f"{row['video']}.mp4"
        pictures = _pictures(target, shown)
    annotated = {track for track in table["track"].unique().to_pylist() if track in scores}
    html = video_page(
        row,
        table,
        name,
        list(zip(shown, pictures, strict=True)),
        {track: gold[track] for track in annotated},
        {track: scores[track] for track in annotated},
        caveat,
    )
    files.write(page, html.encode())
    return {"row": json.dumps(index_row(row, table, f"videos/{row['video']}.html"))}


def _pictures(uri: str, shown: Sequence[Moment]) -> list[str]:
    """Frames of a film as JPEG in base64; empty if a frame is missing."""
    try:
        info = video.probe(uri, uri.rpartition("/")[2])
    except MediaError:
        return [""] * len(shown)
    found = []
    for moment in shown:
        number = int(np.clip(np.searchsorted(info.time_s, moment.time_s - 1e-3), 0, len(info.time_s) - 1))
        picture = next((picture for _, picture in video.decode(uri, info, number, number + 1)), None)
        if picture is None:
            found.append("")
            continue
        image = Image.fromarray(picture)
        image.thumbnail((PICTURE_WIDTH_PX, PICTURE_WIDTH_PX))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        found.append(base64.b64encode(buffer.getvalue()).decode())
    return found
