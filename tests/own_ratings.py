"""Videos of generated people with ratings as annotators leave them: late, noisy, biased, in every format that is read.

    python -m tests.own_ratings FOLDER

writes FOLDER/videos, FOLDER/ratings.csv, 25 ratings a second from 1 to 9 by three raters, FOLDER/labels, the truth, and
FOLDER/held_out, the same of other people.
"""

import csv
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy import ndarray

from affect.corpus import affwild2, demo, video
from affect.corpus.elan import write_eaf
from affect.settings.labels import Labels


class Rater(NamedTuple):
    """An annotator.

    Args:
        name: name; empty if files do not say it.
        noise: standard deviation of a rating's error.
        bias: constant error.
        lag_s: reaction time in seconds.
    """

    name: str
    noise: float
    bias: float
    lag_s: float


THREE = (Rater("anna", 0.1, 0.05, 1.2), Rater("ben", 0.2, -0.1, 2.0), Rater("cleo", 0.05, 0.0, 0.6))
EXACT = Rater("", 0.0, 0.0, 0.0)
Rated = Mapping[str, tuple[ndarray, ndarray]]
"""Times of frames and annotations (frames, 2) by track."""
Written = tuple[str, Labels]
"""Path of ratings, and the settings with which they are read."""


def corpus(folder: Path) -> Rated:
    """Annotated tracks of a generated corpus that are not held out."""
    stems = {path.stem: path for path in (folder / "videos").glob("*.mp4")}
    found = {}
    for split in affwild2.read_splits(str(folder / "labels")).values():
        for track, gold in split.items():
            path = stems[affwild2.video_of(track, stems)]
            found[track] = video.probe(str(path), path.name).time_s[: len(gold)], gold
    return found


def rate(
    time_s: ndarray, gold: ndarray, rater: Rater, per_s: float, bounds: tuple[float, float], rng: np.random.Generator
) -> tuple[ndarray, ndarray]:
    """Times and ratings (n, 2) of one rater."""
    at = np.arange(0, time_s[-1] + rater.lag_s, 1 / per_s)
    known = ~np.isnan(gold).any(axis=1)
    seen = np.stack([np.interp(at - rater.lag_s, time_s[known], gold[known, c]) for c in range(2)], axis=1)
    values = (seen + rater.bias + rater.noise * rng.normal(size=seen.shape)).clip(-1, 1)
    low, high = bounds
    return at, low + (values + 1) / 2 * (high - low)


def write_csv(folder: Path, tracks: Rated, rng: np.random.Generator) -> Written:
    """One file of all tracks and raters, 25 a second, 1 to 9."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "ratings.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["track", "rater", "time_s", "valence", "arousal"])
        for track, (time_s, gold) in tracks.items():
            for rater in THREE:
                at, values = rate(time_s, gold, rater, 25.0, (1, 9), rng)
                lines = np.column_stack([at, values]).tolist()
                rows.writerows([track, rater.name, *(f"{cell:.4f}" for cell in line)] for line in lines)
    return str(folder / "ratings.csv"), Labels(range="1..9", lag_s="auto")


def write_folders(folder: Path, tracks: Rated, rng: np.random.Generator) -> Written:
    """A folder per rater with a file per track, 25 a second -100 to 100."""
    for rater in THREE:
        (folder / rater.name).mkdir(parents=True)
        for track, (time_s, gold) in tracks.items():
            at, values = rate(time_s, gold, rater, 25.0, (-100, 100), rng)
            lines = np.column_stack([at, values]).tolist()
            text = "".join("\t".join(f"{cell:.3f}" for cell in line) + "\n" for line in lines)
            (folder / rater.name / f"{track}.tsv").write_text("time_s\tvalence\tarousal\n" + text)
    lags = ",".join(f"{rater.name}={rater.lag_s}" for rater in THREE)
    return str(folder), Labels(range="-100..100", lag_s=lags)


def write_parquet(folder: Path, tracks: Rated, rng: np.random.Generator) -> Written:
    """A file per track, two ratings a second by one rater without error, 0 to 1."""
    folder.mkdir(parents=True)
    for track, (time_s, gold) in tracks.items():
        at, values = rate(time_s, gold, EXACT, 2.0, (0, 1), rng)
        table = pa.table({"time_s": at, "valence": values[:, 0], "arousal": values[:, 1]})
        pq.write_table(table, folder / f"{track}.parquet")
    return str(folder), Labels(range="0..1")


def write_elan(folder: Path, tracks: Rated, rng: np.random.Generator) -> Written:
    """An .eaf file per video, with two tiers per person."""
    folder.mkdir(parents=True)
    tiers: dict[str, dict[str, ndarray]] = {}
    times = {}
    for track, (time_s, gold) in tracks.items():
        stem, _, side = track.partition("_")
        times[stem] = time_s
        for c, name in enumerate(("valence", "arousal")):
            tiers.setdefault(stem, {})[f"{name} {side or 'main'}"] = gold[:, c]
    for stem, of_video in tiers.items():
        (folder / f"{stem}.eaf").write_bytes(write_eaf(of_video, times[stem], f"file:///{stem}.mp4"))
    return str(folder), Labels(range="-1..1")


def write_export(folder: Path, tracks: Rated, rng: np.random.Generator) -> Written:
    """ELAN's tab-separated export of annotations of half a second, 1 to 7."""
    folder.mkdir(parents=True)
    lines: dict[str, list[str]] = {}
    for track, (time_s, gold) in tracks.items():
        stem, _, side = track.partition("_")
        at, values = rate(time_s, gold, EXACT, 2.0, (1, 7), rng)
        for c, name in enumerate(("valence", "arousal")):
            for start, value in zip(at.tolist(), values[:, c].tolist(), strict=True):
                cells = [f"{name} {side}".strip(), "", f"{start:.3f}", f"{start + 0.5:.3f}", f"{value:.3f}"]
                lines.setdefault(stem, []).append("\t".join(cells))
    for stem, rows in lines.items():
        (folder / f"{stem}.txt").write_text("\n".join(rows) + "\n")
    return str(folder), Labels(range="1..7", lag_s="0.25")  # the middle of an interval


FORMATS: dict[str, Callable[[Path, Rated, np.random.Generator], Written]] = {
    "csv": write_csv,
    "folders": write_folders,
    "parquet": write_parquet,
    "elan": write_elan,
    "export": write_export,
}
"""Writers of ratings by name of their format."""


def main(folder: Path) -> None:
    """Writes the corpus and its ratings."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that start now, one per core
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
        demo.make_corpus(folder, "demo", mapper=processes.map)
    write_csv(folder, corpus(folder), np.random.default_rng(0))
    print(f"{folder}/videos, {folder}/ratings.csv; held out: {folder}/held_out/videos")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
