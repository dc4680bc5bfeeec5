"""Ratings over time: what a person who watched a video said of it, at times of their own.

CSV (.csv, .tsv) and Parquet files have a row per time and rater, with columns in any order:

    time_s or frame     seconds from the video's start, or frames counted from 0; in order
    valence, arousal    in the stated range; empty: not rated
    track, rater        where one file holds several
    split, person       train, development or held_out; whom the track shows

Files are read line by line, so that errors name the line.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float
from numpy import ndarray
from pyarrow.lib import ArrowException

from affect import timeline
from affect.corpus.affwild2 import LabelError, Split
from affect.corpus.images import DIMENSIONS
from affect.progress import say

SPLITS: Mapping[str, Split] = {
    "": "train",
    "train": "train",
    "training": "train",
    "development": "development",
    "dev": "development",
    "validation": "development",
    "val": "development",
    "held_out": "held_out",
    "test": "held_out",
}
"""Words for the use of a track."""
COLUMNS = ("time_s", "frame", *DIMENSIONS, "track", "rater", "split", "person")
"""Columns that are read."""
TWO_RATES = 1.5
"""Ratio of the steps of both halves of a rater's times from which they are called two rates."""


class Curve(NamedTuple):
    """Ratings of one dimension by one rater.

    Args:
        at: times in seconds, or frames; increasing.
        value: ratings in [-1, 1].
    """

    at: Float[ndarray, " n"]
    value: Float[ndarray, " n"]


@dataclass(frozen=True)
class Piece:
    """Ratings of one track by one rater, from one file.

    Args:
        track: name of the track.
        rater: name of the rater; empty if none is given.
        curves: valence and arousal.
        by_frame: whether times are frame numbers.
        split: use of the track.
        person: whom the track shows; empty if not given.
        path: its file.
    """

    track: str
    rater: str
    curves: tuple[Curve, Curve]
    by_frame: bool
    split: Split
    person: str
    path: str


@dataclass(frozen=True)
class Ratings:
    """Ratings of one track.

    Args:
        curves: valence and arousal by rater.
        by_frame: whether times are frame numbers.
    """

    curves: Mapping[str, tuple[Curve, Curve]]
    by_frame: bool


@dataclass
class _Lines:
    """Lines of one track and rater: numbers, times, ratings, and the words of the other columns."""

    number: list[int] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    values: list[tuple[float, float]] = field(default_factory=list)
    words: set[tuple[str, str]] = field(default_factory=set)


def read_table(content: bytes, path: str, track: str, rater: str, bounds: tuple[float, float]) -> list[Piece | str]:
    """Reads a CSV or Parquet file.

    Args:
        content: the file's bytes.
        path: its path, for messages; the suffix says its format.
        track: name of the track where no column says it.
        rater: name of the rater where no column says it.
        bounds: lowest and highest possible rating.

    Returns:
        A piece per track and rater, or the reason why it cannot be used.

    Raises:
        LabelError: the file cannot be read, or a column is missing.
    """
    names, rows = _parquet(content, path) if path.lower().endswith(".parquet") else _csv(content, path)
    if twice := sorted({name for name in names if name in COLUMNS and names.count(name) > 1}):
        raise LabelError(f"{path}: it has more than one column {', '.join(twice)}")
    time = _time_column(names, path)
    groups: dict[tuple[str, str], _Lines] = {}
    faults: dict[tuple[str, str], str] = {}
    for number, cells in rows:
        row = dict(zip(names, cells, strict=False))
        key = row.get("track", "").strip() or track, row.get("rater", "").strip() or rater
        lines = groups.setdefault(key, _Lines())
        try:
            lines.at.append(float(row[time]))
            lines.values.append((_rating(row["valence"]), _rating(row["arousal"])))
        except (ValueError, KeyError):
            words = ",".join(cells)[:60]
            faults.setdefault(key, f"{path}: row {number} is {words!r}: {time}, valence and arousal are numbers")
            continue
        lines.number.append(number)
        lines.words.add((row.get("split", "").strip().lower(), row.get("person", "").strip()))
    if not groups:
        raise LabelError(f"{path}: it has no row")
    found: list[Piece | str] = []
    for (name, who), lines in groups.items():
        fault = faults.get((name, who)) or _fault(lines, time, path, bounds)
        found.append(f"track {name}: {fault}" if fault else _piece(name, who, lines, time, path, bounds))
    return found


def _csv(content: bytes, path: str) -> tuple[list[str], Iterable[tuple[int, list[str]]]]:
    """Names of the columns, and numbered rows."""
    try:
        text = content.decode("utf-8-sig")
        delimiter = "\t" if path.lower().endswith(".tsv") else ","
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise LabelError(f"{path}: it is no CSV: {error}") from None
    names = [name.strip() for name in rows[0]] if rows else []
    return names, ((number, cells) for number, cells in enumerate(rows[1:], start=2) if cells)


def _parquet(content: bytes, path: str) -> tuple[list[str], Iterable[tuple[int, list[str]]]]:
    """Names of the columns, and numbered rows as text."""
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        names = [name for name in file.schema_arrow.names if name in COLUMNS]
        columns = [[_text(value) for value in column.to_pylist()] for column in file.read(names).columns]
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        raise LabelError(f"{path}: it is no Parquet file of ratings: {(str(error).splitlines() or [''])[0]}") from None
    return names, ((number, list(cells)) for number, cells in enumerate(zip(*columns, strict=True), 1))


def _text(value: Any) -> str:  # noqa: ANN401 -- of any column
    """A cell as a CSV has it."""
    return "" if value is None else value.decode() if isinstance(value, bytes) else str(value)


def _time_column(names: list[str], path: str) -> str:
    """The column of times: time_s or frame."""
    given = [name for name in ("time_s", "frame") if name in names]
    missing = [name for name in DIMENSIONS if name not in names]
    if len(given) == 2:
        raise LabelError(f"{path}: it has time_s and frame, two statements of the time: leave one out")
    if missing or not given:
        lacking = " and ".join([*([] if given else ["time_s or frame"]), *missing])
        raise LabelError(f"{path}: it has no column {lacking}, but {', '.join(names)[:100] or 'none'}")
    return given[0]


def _rating(cell: str) -> float:
    return float(cell) if cell.strip() else np.nan


def _fault(lines: _Lines, time: str, path: str, bounds: tuple[float, float]) -> str:
    """Reason why lines cannot be used; empty if they can."""
    at, values, (low, high) = np.array(lines.at), np.array(lines.values), bounds
    if not np.isfinite(at).all():
        return f"{path}: row {lines.number[int(np.argmin(np.isfinite(at)))]} has {time} {at[~np.isfinite(at)][0]}"
    if time == "frame" and at.min() < 0:
        return f"{path}: row {lines.number[int(at.argmin())]} has frame {at.min():g}: they count from 0"
    back = np.flatnonzero(np.diff(at) <= 0)
    if len(back):
        number = int(back[0]) + 1
        return (
            f"{path}: row {lines.number[number]} has {time} {at[number]:g} after {at[number - 1]:g}: times grow; "
            "several raters need a column rater, several tracks a column track"
        )
    wrong = ~(np.isnan(values) | ((values >= low) & (values <= high))).all(axis=1)
    if wrong.any():
        number = int(wrong.argmax())
        return (
            f"{path}: row {lines.number[number]} has {values[number].tolist()}, outside of the stated range "
            f"{low:g}..{high:g}"
        )
    if len(lines.words) > 1:
        return f"{path}: its rows say different splits or persons"
    [(split, _)] = lines.words
    if split not in SPLITS:
        return f"{path}: split {split!r} is none of {', '.join(filter(None, SPLITS))}"
    return ""


def _piece(track: str, rater: str, lines: _Lines, time: str, path: str, bounds: tuple[float, float]) -> Piece:
    """Piece of checked lines; warns of two rates."""
    at, [(split, person)] = np.array(lines.at), lines.words
    steps = np.diff(at)
    if len(steps) >= 4:
        halves = [float(np.median(half)) for half in np.array_split(steps, 2)]
        if max(halves) > TWO_RATES * min(halves):
            say(f"warning: {path}: track {track}: a rating every {halves[0]:g}, later every {halves[1]:g} ({time})")
    curves = curves_of(at, scaled(np.array(lines.values), bounds))
    return Piece(track, rater, curves, time == "frame", SPLITS[split], person, path)


def curves_of(at: Float[ndarray, " n"], values: Float[ndarray, "n 2"]) -> tuple[Curve, Curve]:
    """Curves of valence and arousal without what is not rated."""
    rated = ~np.isnan(values)
    valence, arousal = (Curve(at[rated[:, c]], values[rated[:, c], c]) for c in range(2))
    return valence, arousal


def scaled(values: Float[ndarray, "*shape"], bounds: tuple[float, float]) -> Float[ndarray, "*shape"]:
    """Ratings in [-1, 1]: ``2 (v - low) / (high - low) - 1``."""
    low, high = bounds
    return 2 * (values - low) / (high - low) - 1


def at_frames(
    curve: Curve, time_s: Float[ndarray, " frames"], lag_s: float, max_gap_s: float, *, by_frame: bool
) -> Float[ndarray, " frames"]:
    """Ratings at every frame: linear between two that are at most a gap apart, NaN elsewhere.

    Args:
        curve: the ratings.
        time_s: time of every frame.
        lag_s: seconds by which ratings come late: a rating at t is of time ``t - lag_s``.
        max_gap_s: longest gap.
        by_frame: whether the curve's times are frames.
    """
    values = np.full(len(time_s), np.nan)
    if not len(curve.at):
        return values
    at = seconds_of(curve, time_s, by_frame=by_frame) - lag_s
    tolerance = timeline.TIME_TOLERANCE_S
    after = np.searchsorted(at, time_s - tolerance)  # first rating at or past the frame
    before = (np.searchsorted(at, time_s + tolerance, side="right") - 1).clip(min=0)  # last one at or before it
    inside = (after < len(at)) & (at[before] <= time_s + tolerance)
    after = after.clip(max=len(at) - 1)
    near = inside & (at[after] - at[before] <= max_gap_s + tolerance)
    values[near] = np.interp(time_s[near], at, curve.value)
    return values


def seconds_of(curve: Curve, time_s: Float[ndarray, " frames"], *, by_frame: bool) -> Float[ndarray, " n"]:
    """Times of ratings in seconds; frames past the last one are at the mean rate.

    Args:
        curve: the ratings.
        time_s: time of every frame.
        by_frame: whether the curve's times are frames.
    """
    if not by_frame:
        return curve.at
    past = (curve.at - (len(time_s) - 1)).clip(min=0) / timeline.Timestamps(time_s).fps
    return np.interp(curve.at, np.arange(len(time_s)), time_s) + past
