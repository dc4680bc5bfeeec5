"""The report of predictions: pages to look at, made from the tables, and films to look at them with.

OUT/report/index.html                      every video, what is missing and why, what it was made with
OUT/report/videos/<video>.html, .mp4       a video: its film, valence and arousal under it, whom the fusion trusted
RUNS/<recipe>.html                         the curves of a training
"""

import base64
import io
import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from av.error import FFmpegError
from numpy import ndarray
from PIL import Image

from affect import concordance, files, schema
from affect.config import Modality, Run, address
from affect.corpus import video
from affect.corpus.film import note_of
from affect.corpus.hints import Points
from affect.corpus.video import MediaError
from affect.face.tracks import at, choose
from affect.pipeline import plan, results, speed
from affect.pipeline.caveat import caveat_of
from affect.pipeline.cluster import room
from affect.pipeline.evaluate import Evaluation
from affect.pipeline.features import load_table, who_is_who
from affect.pipeline.film import Cast, film
from affect.pipeline.graph import each
from affect.pipeline.models import Model
from affect.pipeline.plan import Video
from affect.pipeline.predict import read_outcomes, read_predictions
from affect.pipeline.progress import Meter, say
from affect.pipeline.store import Store, read_table
from affect.report.figures import gold_against_predicted, ranking
from affect.report.pages import by_track, index_page, index_row, training_page, video_page
from affect.report.series import Moment, moments

LARGEST = (640, 360)
"""Width and height of a film in pixels at most."""
QUALITY = 27
"""Of a film, see :func:`affect.corpus.film.write_film`."""
MAX_SHOWN = 3
"""People of a video whose strongest moments are shown."""
CPUS = 0.5
"""Of making a film or a page."""
PICTURE_WIDTH_PX = 320
"""Of a moment's picture at most."""


def films(run: Run, videos: Sequence[Video], store: Store, out: str, hints: Mapping[str, Points]) -> None:
    """Make the films of predicted videos, those that are not there.

    Args:
        run: the run.
        videos: probed and extracted.
        store: features.
        out: folder of predictions.
        hints: points on the person that a track means, by track.
    """
    out, usable = files.absolute(out), {entry.stem: entry for entry in videos if entry.head}
    if not usable:
        return
    make = partial(_film, videos=usable, run=run, where=plan.addresses(run), store=store, out=out, hints=hints)
    rows = [{"stem": stem} for stem in usable]
    start, made_s, work_s = time.monotonic(), 0.0, 0.0
    with Meter("report", float(len(rows)), "films") as meter:
        for row in each(rows, make, CPUS):
            if row["reason"]:
                say(f"{row['stem']}: no film, {row['reason']}")
            made_s, work_s = made_s + row["made_s"], work_s + row["took_s"]
            meter.advance(1.0)
    start_s = max(0.0, time.monotonic() - start - work_s / at_once(len(rows)))
    speed.note(store.uri, "report", "films", made_s, work_s, start_s)


def at_once(num_films: int) -> int:
    """Films that are made at once."""
    return max(1, min(num_films, int(room().get("CPU", 1.0) / CPUS)))


def _film(
    row: dict[str, Any],
    videos: Mapping[str, Video],
    run: Run,
    where: dict[Modality, str],
    store: Store,
    out: str,
    hints: Mapping[str, Points],
) -> dict[str, Any]:
    start = time.monotonic()
    reason, made_s = _make_film(videos[row["stem"]], run, where, store, out, hints)
    return {**row, "reason": reason, "made_s": made_s, "took_s": time.monotonic() - start if made_s else 0.0}


def _make_film(
    entry: Video, run: Run, where: dict[Modality, str], store: Store, out: str, hints: Mapping[str, Points]
) -> tuple[str, float]:
    """Make a film; returns why there is none, and its length if it was made now."""
    assert entry.head is not None
    target = _film_of(out, entry.stem)
    try:
        table = read_table(files.join(out, f"{entry.stem}.parquet"))
    except FileNotFoundError:
        return "it was not predicted", 0.0
    people = [(rows["track"][0].as_py(), rows["person"][0].as_py()) for rows in by_track(table)]
    points = {track: [tuple(point) for point in hints.get(track, ())] for track, _ in people}
    mark = address(where.get("face"), entry.head.fingerprint, run.tracking, people, points, LARGEST, QUALITY)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        if files.exists(target):
            path.write_bytes(files.read(target))
            if note_of(path) == mark:
                return "", 0.0
        cast = []
        if "face" in where and people:
            faces, persons = _seen(entry, run, where, store)
            for track, name in people:
                person = at(persons, hints[track]) if track in hints else choose(persons, faces, name)
                if person is not None:
                    cast.append(Cast(name, person))
        probe = plan.load_probe(store, entry.probe_key)
        try:
            film(path, entry.uri, probe, cast, largest=LARGEST, captions=False, note=mark, quality=QUALITY)
        except (ValueError, OSError, FFmpegError) as error:
            return str(error), 0.0
        files.write(target, path.read_bytes())
    return "", entry.head.duration_s


def _seen(entry: Video, run: Run, where: dict[Modality, str], store: Store) -> tuple[Any, list[Any]]:
    faces, _, persons = who_is_who(load_table(entry, run, where, "face", store)[0], run)
    return faces, persons


def _film_of(out: str, stem: str) -> str:
    return files.join(out, "report", "videos", f"{stem}.mp4")


def pages(out: str, gold: Evaluation | None = None) -> None:
    """Make the pages of all predicted videos and their index.

    Args:
        out: folder of predictions; films that it has are shown.
        gold: the same predictions against annotations; without it pages show predictions alone.
    """
    out = files.absolute(out)
    note = json.loads(files.read(files.join(out, "run.json")))
    outcomes = read_outcomes(out)
    caveat = caveat_of(note["recipe"])
    golds = gold.truth.gold if gold else {}
    scores = _track_scores(gold) if gold else {}
    rows = []
    if outcomes:
        make = partial(_page, out=out, gold=golds, scores=scores, caveat=caveat)
        with Meter("report", float(len(outcomes)), "pages") as meter:
            for row in each(outcomes, make, CPUS):
                rows.append(json.loads(row["row"]))
                meter.advance(1.0)
    rows.sort(key=lambda row: row["video"])
    reasons = Counter(part for row in rows for part in row["reason"].split("; ") if part)
    figures, table = [], []
    if gold:
        within = _video_scores(gold)
        for row in rows:
            if row["video"] in within:
                row["ccc"] = dict(zip(("valence", "arousal"), within[row["video"]], strict=True))
        truth, answers = gold.truth, gold.answers[-1].tracks
        told = {name: results.at_labels(answers[name], len(values)) for name, values in truth.gold.items()}
        figures.append(
            gold_against_predicted(np.concatenate(list(truth.gold.values())), np.concatenate(list(told.values())))
        )
        figures.append(ranking(within))
        table = results.scores(list(gold.answers), truth).to_pylist()
    facts = [(name, str(value)) for name, value in note["made_with"].items()]
    settings = json.dumps(note["settings"], indent=1)
    title = f"Valence and arousal of {len(rows)} videos, recipe {note['recipe']}"
    html = index_page(
        title, rows, facts, settings, reasons.most_common(), table, gold.title if gold else "", figures, caveat
    )
    files.write(files.join(out, "report", "index.html"), html.encode())
    say(f"report: {out}/report/index.html")


def _page(
    row: dict[str, Any],
    out: str,
    gold: Mapping[str, ndarray],
    scores: Mapping[str, tuple[float, float]],
    caveat: str,
) -> dict[str, Any]:
    """Write a video's page; returns its row of the index."""
    target, page = _film_of(out, row["video"]), files.join(out, "report", "videos", f"{row['video']}.html")
    if row["status"] == "failed":  # the index says why, and what an earlier run said holds no more
        files.delete(target)
        files.delete(page)
        return {"row": json.dumps(index_row(row, schema.PREDICTIONS.empty_table(), None))}
    table = read_predictions(files.join(out, f"{row['video']}.parquet"))
    shown = [moment for rows in by_track(table)[:MAX_SHOWN] for moment in moments(rows)]
    pictures = [""] * len(shown)
    name = None
    if files.exists(target):
        name = f"{row['video']}.mp4"
        pictures = _pictures(target, shown)
    own = {track for track in table["track"].unique().to_pylist() if track in scores}
    html = video_page(
        row,
        table,
        name,
        list(zip(shown, pictures, strict=True)),
        {track: gold[track] for track in own},
        {track: scores[track] for track in own},
        caveat,
    )
    files.write(page, html.encode())
    return {"row": json.dumps(index_row(row, table, f"videos/{row['video']}.html"))}


def _pictures(uri: str, shown: Sequence[Moment]) -> list[str]:
    """Frames of a film as JPEG in base64; empty where there is none."""
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


def _track_scores(gold: Evaluation) -> dict[str, tuple[float, float]]:
    """CCC of valence and arousal of every annotated track."""
    answers = gold.answers[-1].tracks
    found = {}
    for name, values in gold.truth.gold.items():
        ccc = concordance.ccc(values, results.at_labels(answers[name], len(values)))
        found[name] = (float(ccc[0]), float(ccc[1]))
    return found


def _video_scores(gold: Evaluation) -> dict[str, tuple[float, float]]:
    """The same of every annotated video."""
    rows = results.per_video([gold.answers[-1]], gold.truth).to_pylist()
    return {row["video"]: (row["valence"], row["arousal"]) for row in rows}


def training_report(runs: str, name: str, models: Sequence[Model]) -> None:
    """Say what a recipe's models score, and write their curves.

    Args:
        runs: where models are.
        name: of the recipe's training.
        models: the models.
    """
    shown = [
        {
            "title": model.title,
            "address": model.address,
            "best": model.best,
            "settings": model.settings,
            "history": json.loads(files.read(files.join(model.uri, "history.json"))),
        }
        for model in models
    ]
    for model in models:
        say(f"{model.title}: development CCC {model.best['mean']:.3f} (selected on it), {model.uri}")
    path = files.join(files.absolute(runs), f"{name}.html")
    files.write(path, training_page(f"Training of recipe {name}", shown, caveat_of(name)).encode())
    say(f"report: {path}")
