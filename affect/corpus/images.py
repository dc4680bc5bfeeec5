"""Labelled face pictures for training the frame encoder: reads manifests and single pictures.

A manifest is a CSV or Parquet file with a row per picture:

    path          relative to the manifest, absolute, or a URI
    dataset       name of the data set
    expression    optional: one of affect.settings.names.EXPRESSIONS, or empty
    valence       optional: in [-1, 1]; empty or -5 for no annotation
    arousal       optional: in [-1, 1]; empty or -5 for no annotation
    box           optional: "left top right bottom" of the face in pixels (Parquet: or a list), or empty
    person        optional: name of the person; splits keep the pictures of one person together
"""

import errno
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Float, Int, Shaped, UInt8
from numpy import ndarray
from PIL import Image, ImageOps, UnidentifiedImageError

from affect.settings.names import EXPRESSIONS
from affect.storage import files

MAX_IMAGES = 1024
"""Most pictures of one item, so that the pictures of a data set without persons can be divided among workers."""
NOT_ANNOTATED = -5.0
MISSING_ERRNOS = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)
"""System errors of a wrong path; others are errors of the disk or the network."""
TEXTS = ("path", "dataset", "expression", "box", "person")
DIMENSIONS = ("valence", "arousal")


class ImageError(ValueError):
    """A picture that cannot be used; the message has its path and the reason."""


@dataclass(frozen=True)
class Images:
    """Labelled pictures of one person, or of a data set without persons.

    Args:
        name: data set and person.
        dataset: name of the data set.
        uris: paths or URIs of the pictures.
        box: left, top, right, bottom of the face in pixels, NaN for the whole picture.
        expression: index into :data:`affect.settings.names.EXPRESSIONS`, -1 for no annotation.
        gold: valence and arousal in [-1, 1], NaN for no annotation.
    """

    name: str
    dataset: str
    uris: Sequence[str]
    box: Float[ndarray, "images 4"]
    expression: Int[ndarray, " images"]
    gold: Float[ndarray, "images 2"]

    @property
    def targets(self) -> Float[ndarray, "images 3"]:
        """Valence, arousal and the expression's index, NaN for missing labels."""
        expression = np.where(self.expression < 0, np.nan, self.expression)
        return np.concatenate([self.gold, expression[:, None]], axis=1)

    def cut(self, start: int, end: int) -> "Images":
        """The pictures ``[start, end)``."""
        return self.keep(np.arange(start, end))

    def keep(self, part: Shaped[ndarray, " kept"]) -> "Images":
        """Selects pictures by numbers or by a mask."""
        uris = [self.uris[i] for i in np.arange(len(self.uris))[part]]
        return Images(self.name, self.dataset, uris, self.box[part], self.expression[part], self.gold[part])


def read_manifest(uri: str) -> list[Images]:
    """Reads a manifest, grouped by data set and person.

    Args:
        uri: path or URI that ends in ``.csv`` or ``.parquet``.

    Raises:
        ValueError: a column is missing or unknown, or a row has a wrong label; the message has the row.
    """
    content = io.BytesIO(files.read(uri))
    convert = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(TEXTS, pa.string()))  # "NA" may be a person's name
    try:
        table = (
            pyarrow.parquet.read_table(content)
            if uri.endswith(".parquet")
            else pyarrow.csv.read_csv(content, convert_options=convert)
        )
    except pa.ArrowInvalid as error:
        raise ValueError(f"{uri} is no manifest: {error}") from error
    known = {*TEXTS, *DIMENSIONS}
    if twice := {name for name in table.column_names if table.column_names.count(name) > 1}:
        raise ValueError(f"{uri}: column {', '.join(sorted(twice))} appears twice")
    if wrong := ({"path", "dataset"} - set(table.column_names)) | (set(table.column_names) - known):
        raise ValueError(f"{uri}: columns have to be path, dataset and any of {sorted(known)}; look at {sorted(wrong)}")
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for number, row in enumerate(table.to_pylist(), start=1):
        try:
            parsed = _parse(row)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{uri} row {number} ({row['path'] or None}): {error}") from None
        groups.setdefault((parsed["dataset"], parsed["person"]), []).append(parsed)
    folder = files.absolute(uri).rpartition("/")[0]
    return [
        _group(f"{dataset}/{person}" if person else dataset, dataset, rows[i : i + MAX_IMAGES], folder)
        for (dataset, person), rows in groups.items()
        for i in range(0, len(rows), MAX_IMAGES)
    ]


def _parse(row: dict[str, Any]) -> dict[str, Any]:
    text = {name: "" if row.get(name) is None else row[name] for name in TEXTS}
    if not isinstance(text["path"], str) or not text["path"] or text["dataset"] == "":
        raise ValueError("path and dataset have to be given")
    expression = text["expression"]
    if expression and expression not in EXPRESSIONS:
        raise ValueError(f"expression {expression!r} is none of {', '.join(EXPRESSIONS)}")
    affect = _affect([row.get(name) for name in DIMENSIONS])
    if not expression and np.isnan(affect[0]):
        raise ValueError("it has neither an expression nor valence and arousal")
    return {
        "path": text["path"],
        "dataset": str(text["dataset"]),
        "person": str(text["person"]),
        "expression": EXPRESSIONS.index(expression) if expression else -1,
        "gold": affect,
        "box": _box(text["box"]),
    }


def _affect(values: list[Any]) -> list[float]:
    """Valence and arousal of a row, NaN for no annotation."""
    annotation = [np.nan if value is None else float(value) for value in values]
    if NOT_ANNOTATED in annotation or np.isnan(annotation).all():
        return [np.nan, np.nan]
    if np.isnan(annotation).any():
        raise ValueError(f"valence {annotation[0]} and arousal {annotation[1]}: one without the other")
    if not all(-1 <= value <= 1 for value in annotation):
        raise ValueError(f"valence {annotation[0]} and arousal {annotation[1]} have to be in [-1, 1]")
    return annotation


def _box(box: Any) -> list[float]:  # noqa: ANN401 -- text, or a list in Parquet
    """Left, top, right, bottom of the face in pixels; NaN for the whole picture."""
    sides = [float(side) for side in (box.split() if isinstance(box, str) else box)]
    if not sides:
        return [np.nan] * 4
    if len(sides) != 4 or not np.isfinite(sides).all() or sides[2] <= sides[0] or sides[3] <= sides[1]:
        raise ValueError(f"box {box!r} is no left, top, right, bottom")
    return sides


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
    """Reads a picture as upright RGB; 16-bit values are reduced to 8 bits.

    Raises:
        ImageError: the file is missing or is not a picture.
        OSError: the disk or the network fails.
    """
    try:
        with Image.open(io.BytesIO(files.read(uri))) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):
                return np.repeat((np.array(upright) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            if upright.mode in ("I", "F"):
                raise ValueError(f"pixels of 32 bits ({upright.mode}) have no known range")
            return np.array(upright.convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise ImageError(f"{uri}: {error}") from error
    except OSError as error:
        if error.errno in (None, *MISSING_ERRNOS):
            raise ImageError(f"{uri}: {error.strerror or error}") from error
        raise
