"""Films and pages of predictions, made in parallel.

OUT/report/index.html                      all videos, failures with reasons, versions and settings
OUT/report/videos/<video>.html, .mp4       a video: film, valence and arousal over time, gates of the fusion
"""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import ray

from affect import concordance
from affect.corpus.hints import Points
from affect.evaluation import results
from affect.evaluation.evaluate import Evaluation
from affect.pipeline import graph
from affect.plan.addresses import feature_addresses
from affect.plan.clips import Video
from affect.progress import Meter, say
from affect.report.figures import gold_against_predicted, ranking
from affect.report.pages import ScoreSection, index_page
from affect.settings.recipes import caveat_of
from affect.settings.run import Run
from affect.storage import files, speed
from affect.storage.store import Store
from affect.trained.predictions import read_outcomes


def films(run: Run, videos: Sequence[Video], store: Store, out: str, hints: Mapping[str, Points]) -> None:
    """Makes the missing films of predicted videos.

    Args:
        run: the run.
        videos: probed and extracted.
        store: store of the features.
        out: folder of predictions.
        hints: points on the person that a track means, by track.
    """
    out, usable = files.absolute(out), {entry.stem: entry for entry in videos if entry.head}
    if not usable:
        return
    given = dict(videos=usable, run=run, where=feature_addresses(run), store=store, out=out, hints=hints)
    rows = [{"stem": stem} for stem in usable]
    start, made_s, work_s = time.monotonic(), 0.0, 0.0
    with Meter("report", float(len(rows)), "films") as meter:
        for row in graph.films(rows, given):
            if row["reason"]:
                say(f"{row['stem']}: no film, {row['reason']}")
            made_s, work_s = made_s + row["made_s"], work_s + row["took_s"]
            meter.advance(1.0)
    start_s = max(0.0, time.monotonic() - start - work_s / at_once(len(rows)))
    speed.record(store.uri, "report", "films", made_s, work_s, start_s)


def at_once(num_films: int) -> int:
    """Number of films that are made at the same time."""
    return max(1, min(num_films, int(ray.cluster_resources().get("CPU", 1.0) / graph.FILM_CPUS)))


def pages(out: str, gold: Evaluation | None = None) -> None:
    """Makes the pages of all predicted videos and their index.

    Args:
        out: folder of predictions; pages show the films that it has.
        gold: these predictions with annotations; None: pages show predictions only.
    """
    out = files.absolute(out)
    note = json.loads(files.read(files.join(out, "run.json")))
    outcomes = read_outcomes(out)
    caveat = caveat_of(note["recipe"])
    golds = gold.truth.gold if gold else {}
    scores = _track_scores(gold) if gold else {}
    rows = []
    if outcomes:
        given = dict(out=out, gold=golds, scores=scores, caveat=caveat)
        with Meter("report", float(len(outcomes)), "pages") as meter:
            for row in graph.pages(outcomes, given):
                rows.append(json.loads(row["row"]))
                meter.advance(1.0)
    rows.sort(key=lambda row: row["video"])
    reasons = Counter(part for row in rows for part in row["reason"].split("; ") if part)
    scored = None
    if gold:
        within = _video_scores(gold)
        for row in rows:
            if row["video"] in within:
                row["ccc"] = dict(zip(("valence", "arousal"), within[row["video"]], strict=True))
        truth, answers = gold.truth, gold.answers[-1].tracks
        predicted = {name: results.at_labels(answers[name], len(values)) for name, values in truth.gold.items()}
        gold_values = np.concatenate(list(truth.gold.values()))
        density = gold_against_predicted(gold_values, np.concatenate(list(predicted.values())))
        table = results.scores(list(gold.answers), truth).to_pylist()
        scored = ScoreSection(gold.title, table, [density, ranking(within)])
    facts = [(name, str(value)) for name, value in note["made_with"].items()]
    settings = json.dumps(note["settings"], indent=1)
    title = f"Valence and arousal of {len(rows)} videos, recipe {note['recipe']}"
    html = index_page(title, rows, facts, settings, reasons.most_common(), scored, caveat)
    files.write(files.join(out, "report", "index.html"), html.encode())
    say(f"report: {out}/report/index.html")


def _track_scores(gold: Evaluation) -> dict[str, tuple[float, float]]:
    """CCC of valence and arousal of every annotated track."""
    answers = gold.answers[-1].tracks
    found = {}
    for name, values in gold.truth.gold.items():
        ccc = concordance.ccc(values, results.at_labels(answers[name], len(values)))
        found[name] = (float(ccc[0]), float(ccc[1]))
    return found


def _video_scores(gold: Evaluation) -> dict[str, tuple[float, float]]:
    """CCC of valence and arousal of every annotated video."""
    rows = results.per_video([gold.answers[-1]], gold.truth).to_pylist()
    return {row["video"]: (row["valence"], row["arousal"]) for row in rows}
