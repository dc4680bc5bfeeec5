"""Scores predictions, of files or of trained models, against annotations.

RUNS/evaluation/<train|development|held_out>/{scores,videos,gates}.csv      of the latest evaluation of runs
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from numpy import ndarray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from affect import timeline
from affect.corpus import affwild2
from affect.corpus.affwild2 import Split
from affect.corpus.labels import read_truth
from affect.evaluation import results
from affect.evaluation.judged import Judged, sources_of
from affect.evaluation.results import Answers, Truth
from affect.progress import say
from affect.settings.labels import Labels
from affect.storage import files
from affect.storage.store import encode_csv, read_table
from affect.tracks.labels import at_frames
from affect.tracks.tables import TrackRef
from affect.trained.models import Model

MAX_VIDEOS_SHOWN = 20
"""Maximum number of videos for which scores per video are printed; the CSV has all of them."""


class Evaluation(NamedTuple):
    """Predictions of systems and the annotations to score them against.

    Args:
        title: names of the predictions and of the labels.
        answers: predictions of each system.
        truth: annotations.
        main: the run's predictions by track, for a submission; the training mean for a track without evidence.
        time_s: time of every frame by track, for tracks with gates.
        split: role of the tracks in training the models.
    """

    title: str
    answers: list[Answers]
    truth: Truth
    main: Mapping[str, Float[ndarray, "_ 2"]]
    time_s: Mapping[str, Float[ndarray, " _"]]
    split: Split = "held_out"


def score_predictions(out: str, labels: str | None, settings: Labels) -> Evaluation:
    """Reads the predictions of jobs/predict.py and their annotations.

    Args:
        out: folder of predictions.
        labels: annotations; None without any.
        settings: reading of annotations.

    Raises:
        ValueError: there are no predictions, an annotated track has none, or the number of frames differs.
    """
    found, videos, times, note = _read_predictions(out)
    mean = note["training_mean"]
    for track in incomplete(found[-1].tracks):
        say(f"warning: nothing is known of track {track}: it is given the training mean {mean[0]:.3f}, {mean[1]:.3f}")
    answers = [replace(a, tracks=fill_missing(a.tracks, mean)) for a in found]
    gold = _read_labels(labels, settings, times) if labels else {}
    _check_predicted(gold, videos)
    for name, values in gold.items():
        duration_s = timeline.Timestamps(times[name]).duration_s
        if warning := affwild2.check_length(name, len(values), len(times[name]), duration_s):
            say(f"warning: {warning}")
    truth = Truth(gold, videos)
    return Evaluation(f"predictions of {out} on {labels}", answers, truth, answers[-1].tracks, {})


def _read_labels(
    labels: str, settings: Labels, times: Mapping[str, Float[ndarray, " _"]]
) -> Mapping[str, Float[ndarray, "_ 2"]]:
    """Annotations of every frame of predicted tracks."""
    given = read_truth(labels, settings)
    if given.per_frame:
        return given.per_frame["held_out"]
    _check_predicted(given.names, times)
    return at_frames(given, times, settings, settings.lags, None)["held_out"]


def _check_predicted(tracks: Iterable[str], predicted: Collection[str]) -> None:
    """Checks that every annotated track has predictions.

    Raises:
        ValueError: one has none.
    """
    if missing := sorted(set(tracks) - set(predicted)):
        raise ValueError(
            f"no prediction for track {missing[0]} ({len(missing)} tracks in all); predict its video first"
        )


def overlap_with_training(models: Sequence[Model], refs: Sequence[TrackRef]) -> tuple[Split, str]:
    """Role of tracks in training the models, and its description: whether any model saw a person of these videos.

    ``main`` may be any person of a video, so it matches ``left`` and ``right`` as well. Models of earlier versions
    list keys of tracks instead of people.
    """
    tracks = {ref.source for ref in refs} | {ref.keys["frames"] for ref in refs}
    tracks |= {f"{ref.content}/main" for ref in refs}
    tracks |= {f"{ref.content}/{side}" for ref in refs if ref.person == "main" for side in ("left", "right")}
    if any(set(model.learned_from) & tracks for model in models):
        return "train", "of which some were TRAINED ON: no measure of anything"
    if any(set(model.selected_on) & tracks for model in models):
        return "development", "on which epochs were selected"
    return "held_out", "which nothing was trained or selected on"


def report(evaluation: Evaluation, console: Console, *, paper: bool = False, folder: str | None = None) -> None:
    """Prints the scores, and writes them as CSV if a folder is given.

    Args:
        evaluation: from :func:`score_predictions` or :func:`affect.pipeline.evaluate.score_runs`.
        console: output of the tables.
        paper: whether published scores are printed in a further column.
        folder: folder of the CSV tables per system, video and second.
    """
    _, answers, truth, _, time_s, split = evaluation
    shown = list(answers)
    try:
        fused = results.late_fusion(answers, truth)
        shown.append(fused.answers)
        note = f"late fusion: each video by weights fitted on other videos; mean weights {fused.weights}"
    except ValueError as error:
        note = f"no late fusion: {error}"
    title = f"CCC [95 % interval over videos], {evaluation.title}"
    _print(results.scores_table(shown, truth, title, paper=paper), console)
    console.print(escape(note))
    tables = [results.differences(shown, truth), results.ablations(answers, truth), results.trust(answers)]
    if folder and len(truth.videos) <= MAX_VIDEOS_SHOWN:
        tables.append(results.videos_table(shown, truth))
    for table in tables:
        if table is not None:
            _print(table, console)
    if folder:
        details = {"scores": results.scores(shown, truth), "videos": results.per_video(shown, truth)}
        details |= {"gates": results.per_second(answers, time_s)}
        place = files.join(files.absolute(folder), split)
        for name, rows in details.items():
            files.write(files.join(place, f"{name}.csv"), encode_csv(rows))
        say(f"per system, video and second: {place}/{{{','.join(details)}}}.csv")


def _print(table: Table, console: Console) -> None:
    """Prints a table below its title, which may be wider than the table."""
    console.print(escape(str(table.title)))
    table.title = None
    console.print(table)


def _read_predictions(out: str) -> tuple[list[Answers], dict[str, str], dict[str, ndarray], dict[str, Any]]:
    """Reads the predictions that jobs/predict.py wrote.

    Returns:
        Predictions of each system, NaN in a track without evidence; video by track; times of frames by track; content
        of ``run.json``.

    Raises:
        ValueError: there are no predictions.
    """
    try:
        note = json.loads(files.read(files.join(out, "run.json")))
    except FileNotFoundError:
        raise ValueError(f"{out}: no predictions; run jobs/predict.py first") from None
    tracks: dict[str, dict[str, ndarray]] = {system: {} for system in note["models"]}
    videos, times = {}, {}
    for name, _, _ in files.walk(out):
        if not name.endswith(".parquet"):
            continue
        rows = read_table(files.join(out, name))
        for track in rows["track"].unique().to_pylist():
            of_track = rows.filter(rows["track"].to_numpy(zero_copy_only=False) == track)
            videos[track] = of_track["video"][0].as_py()
            times[track] = of_track["time_s"].to_numpy()
            for system, predictions in tracks.items():
                predictions[track] = _two(of_track, f"{system}_valence", f"{system}_arousal")
    systems = [Answers(s, tuple(note["modalities"][s]), found) for s, found in tracks.items()]
    return systems, videos, times, note


def _two(rows: pa.Table, valence: str, arousal: str) -> Float[ndarray, "frames 2"]:
    columns = [rows[name].to_numpy(zero_copy_only=False) for name in (valence, arousal)]
    return np.stack(columns, axis=1).astype(np.float64)


def fill_missing(tracks: Mapping[str, ndarray], mean: Sequence[float]) -> dict[str, ndarray]:
    """Replaces missing predictions (NaN) by the training mean, as in a submission."""
    return {name: np.where(np.isnan(values), np.array(mean), values) for name, values in tracks.items()}


def incomplete(tracks: Mapping[str, ndarray]) -> list[str]:
    """Names of tracks in which frames lack a prediction (NaN)."""
    return sorted(name for name, values in tracks.items() if np.isnan(values).any())


def answers_of(model: Model, judged: Mapping[str, Judged], suffix: str) -> Answers:
    """Predictions of a model on tracks, from the results of :func:`affect.pipeline.judge.judge`."""
    mean = model.training_mean
    without = {
        m: fill_missing({name: each.without[m] for name, each in judged.items()}, mean)
        for m in (model.modalities if model.fuses else ())
    }
    gates = {name: each.gates for name, each in judged.items()} if model.fuses else {}
    tracks = fill_missing({name: each.prediction for name, each in judged.items()}, mean)
    return Answers(model.title + suffix, model.modalities, tracks, without, gates, sources_of(model))
