"""Everything that a job does, with a fourth modality: ROOT of the micro corpus, STORE, RUNS, OUT."""

import json
import sys
from dataclasses import fields, replace

import ray

from affect.console.arguments import parse
from affect.corpus import affwild2, hints
from affect.evaluation.evaluate import score_predictions
from affect.pipeline import forecast
from affect.pipeline.assemble import assemble
from affect.pipeline.evaluate import score_runs
from affect.pipeline.extract import extract
from affect.pipeline.job import start_ray
from affect.pipeline.predict import predict
from affect.pipeline.report import films, pages
from affect.pipeline.train import check, train
from affect.settings import recipes
from affect.settings.labels import Labels
from affect.storage.store import Store
from affect.trained.models import load_models
from affect.trained.runs import trained_run
from jobs.train import Train
from tests.conftest import micro_run
from tests.pipeline.color import register
from tests.pipeline.color.settings import Color, ColorRun


def color_run(root: str) -> ColorRun:
    """The micro recipe with four modalities, fused by both fusions."""
    micro = micro_run(root)
    four = ("face", "behavior", "audio", "color")
    own = {f.name: getattr(micro, f.name) for f in fields(micro)} | {
        "systems": (*four, "dcmmoe", "raav"),
        "dcmmoe": replace(micro.dcmmoe, modalities=four),
        "raav": replace(micro.raav, other_priors={"color": 0.1}),
        "color": Color(num_cpus=0.2),
    }
    return ColorRun(**own)


if __name__ == "__main__":
    root, place, runs, out = sys.argv[1:]
    register()
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"worker_process_setup_hook": "tests.pipeline.color.register"},
    )
    start_ray()
    run, places, store = color_run(root), recipes.demo_places(root), Store(place)
    labels = affwild2.read_splits(places.labels)
    names = affwild2.track_names(labels)
    check(run, 0)
    flags = ["--videos", "a.mp4", "--labels", "b", "--store", "c", "--runs", "d", "--color.every-s", "0.25"]
    parsed = parse(Train, ["color", *flags], {}).run
    planned = forecast.extraction(run, places.videos, store, names)[0]
    summary = extract(run, places.videos, store, tracks=names)
    refs = assemble(run, summary.videos, labels, store, hints.read(None))
    models = train(run, refs, store, runs)
    noted = trained_run(runs, run.name, None)
    loaded = load_models(run, runs)
    new = extract(run, places.new_videos, store).videos
    rows = predict(run, new, loaded, store, out)
    films(run, new, store, out, {})
    scored = score_predictions(out, places.truth, Labels())
    pages(out, scored)
    again = extract(run, places.videos, store, tracks=names)
    judged = score_runs(run, places.videos, places.labels, store, runs, {})
    print(
        "RESULT "
        + json.dumps(
            {
                "parsed": [parsed.systems, parsed.color.every_s],
                "planned": planned.lines,
                "done": summary.done,
                "existing": summary.existing,
                "again": again.done,
                "titles": [model.title for model in models],
                "widths": {model.system: model.widths for model in models},
                "noted": noted is not None and noted.run == run,
                "status": [row["status"] for row in rows],
                "systems": [answers.title for answers in scored.answers],
                "gates": {answers.title: len(answers.sources) for answers in judged.answers},
                "without": {answers.title: sorted(answers.without) for answers in judged.answers},
            }
        )
    )
