"""Predictions in the formats of other programs."""

from pathlib import Path
from typing import Any, Literal

import pyarrow.compute as pc

from affect.corpus.elan import write_eaf
from affect.corpus.images import DIMENSIONS
from affect.storage import files
from affect.trained.predictions import read_predictions

Format = Literal["elan"]
"""``elan``: <video>.eaf beside the tables, with a tier per person and dimension."""


def export_elan(row: dict[str, Any], out: str) -> dict[str, Any]:
    """Writes ``<video>.eaf`` of a predicted video; returns its row.

    Args:
        row: stem and URI of the video.
        out: folder of predictions.
    """
    table = read_predictions(files.join(out, f"{row['video']}.parquet"))
    tiers = {}
    for person in table["person"].unique().to_pylist():
        of_person = table.filter(pc.equal(table["person"], person))
        for name in DIMENSIONS:
            tiers[f"{name} {person}"] = of_person[name].to_numpy()
        time_s = of_person["time_s"].to_numpy()
    if tiers:
        media = row["uri"] if "://" in row["uri"] else Path(row["uri"]).absolute().as_uri()
        files.write(files.join(out, f"{row['video']}.eaf"), write_eaf(tiers, time_s, media))
    return row
