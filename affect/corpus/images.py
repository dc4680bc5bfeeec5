"""Labelled face pictures: manifests, and one picture at a time.

A manifest is a CSV or Parquet file with a row per picture:

    path          relative to the manifest, absolute, or a URI
    dataset       where it is from
    expression    optional: one of affect.config.EXPRESSIONS, or nothing
    valence       optional: in [-1, 1], or nothing; -5 is nothing too
    arousal       optional: the same
    box           optional: "left top right bottom" of the face in pixels, or nothing for the whole picture
    person        optional: who it is; pictures of one person are not independent
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from PIL import Image, ImageOps, UnidentifiedImageError

from affect import files
from affect.config import EXPRESSIONS

MAX_IMAGES = 1024
"""Pictures of one item at most, so that workers can share out those of a dataset without persons."""
NOT_ANNOTATED = -5.0


class ImageError(ValueError):
    """A picture that cannot be used: which, and why."""


@dataclass(frozen=True)
class Images:
    """Labelled pictures of one person, or of a dataset without persons.

    Args:
        name: dataset and person.
        dataset: where they are from.
        uris: of the pictures.
        box: left, top, right, bottom in pixels, NaN for the whole picture.
        expression: index into :data:`affect.config.EXPRESSIONS`, -1 without one.
        gold: valence and arousal, NaN without them.
    """

    name: str
    dataset: str
    uris: Sequence[str]
    box: Float[ndarray, "images 4"]
    expression: Int[ndarray, " images"]
    gold: Float[ndarray, "images 2"]

    def cut(self, start: int, end: int) -> "Images":
        """Pictures ``[start, end)``."""
        part = slice(start, end)
        return Images(self.name, self.dataset, self.uris[part], self.box[part], self.expression[part], self.gold[part])


def read_manifest(uri: str) -> list[Images]:
    """Read a manifest, grouped by dataset and person.

    Args:
        uri: ``.csv`` or ``.parquet``.

    Raises:
        ValueError: a column is missing or unknown, or a row's label is impossible; names the row.
    """
    content = io.BytesIO(files.read(uri))
    as_text = {name: pa.string() for name in ("path", "dataset", "expression", "box", "person")}
    convert = pyarrow.csv.ConvertOptions(column_types=as_text, strings_can_be_null=True)
    try:
        table = (
            pyarrow.parquet.read_table(content)
            if uri.endswith(".parquet")
            else pyarrow.csv.read_csv(content, convert_options=convert)
        )
    except pa.ArrowInvalid as error:
        raise ValueError(f"{uri} is no manifest: {error}") from error
    known = {"path", "dataset", "expression", "valence", "arousal", "box", "person"}
    if wrong := ({"path", "dataset"} - set(table.column_names)) | (set(table.column_names) - known):
        raise ValueError(
            f"{uri}: columns have to be path, dataset and some of {sorted(known)}; look at {sorted(wrong)}"
        )
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for number, row in enumerate(table.to_pylist(), start=1):
        try:
            parsed = _parse(row)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{uri} row {number} ({row['path']}): {error}") from None
        groups.setdefault((parsed["dataset"], parsed["person"]), []).append(parsed)
    folder = files.absolute(uri).rpartition("/")[0]
    return [
        _group(f"{dataset}/{person}" if person else dataset, dataset, rows[i : i + MAX_IMAGES], folder)
        for (dataset, person), rows in groups.items()
        for i in range(0, len(rows), MAX_IMAGES)
    ]


def _parse(row: dict[str, Any]) -> dict[str, Any]:
    if not row["path"] or not row["dataset"]:
        raise ValueError("path and dataset have to be given")
    expression = row.get("expression") or ""
    if expression and expression not in EXPRESSIONS:
        raise ValueError(f"expression {expression!r} is none of {', '.join(EXPRESSIONS)}")
    affect = [np.nan if row.get(name) is None else float(row[name]) for name in ("valence", "arousal")]
    if NOT_ANNOTATED in affect or np.isnan(affect).any():
        affect = [np.nan, np.nan]
    elif not all(-1 <= value <= 1 for value in affect):
        raise ValueError(f"valence {affect[0]} and arousal {affect[1]} have to be in [-1, 1]")
    if not expression and np.isnan(affect[0]):
        raise ValueError("it has neither an expression nor valence and arousal")
    box = [float(side) for side in row["box"].split()] if row.get("box") else [np.nan] * 4
    if len(box) != 4 or box[2] <= box[0] or box[3] <= box[1]:
        raise ValueError(f"box {row['box']!r} is no left, top, right, bottom")
    return {
        "path": row["path"],
        "dataset": row["dataset"],
        "person": row.get("person") or "",
        "expression": EXPRESSIONS.index(expression) if expression else -1,
        "gold": affect,
        "box": box,
    }


def _group(name: str, dataset: str, rows: list[dict[str, Any]], folder: str) -> Images:
    return Images(
        name=name,
        dataset=dataset,
        uris=[
            path if "://" in path or path.startswith("/") else f"{folder}/{path}" for path in (r["path"] for r in rows)
        ],
        box=np.array([row["box"] for row in rows], dtype=np.float64),
        expression=np.array([row["expression"] for row in rows], dtype=np.int64),
        gold=np.array([row["gold"] for row in rows], dtype=np.float64),
    )


def read_image(uri: str) -> UInt8[ndarray, "H W 3"]:
    """Read a picture as RGB, upright.

    Raises:
        ImageError: it is missing or no picture.
    """
    try:
        with Image.open(io.BytesIO(files.read(uri))) as image:
            upright = ImageOps.exif_transpose(image)
            return np.array(upright.convert("RGB"))
    except (FileNotFoundError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise ImageError(f"{uri}: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise  # the disk or the network, not the picture
        raise ImageError(f"{uri}: {error}") from error
