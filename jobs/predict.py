"""Predicts valence and arousal of every frame and person of new videos.

    python jobs/predict.py RECIPE --videos URI --store URI --runs URI --out URI [--template FILE]

Exit code 0: everything succeeded; 3: finished, some videos or clips failed; 1: no usable video, or an error.
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from affect.pipeline import job
from affect.settings.names import People
from affect.settings.run import Run
from affect.storage import files
from affect.trained.export import Format


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Predict valence and arousal of every frame and person of new videos; missing features are extracted first."""

    run: Annotated[Run, tyro.conf.arg(name="")]
    """Settings of the recipe."""
    new_videos: Annotated[tuple[str, ...], tyro.conf.arg(name="videos")]
    """Folders, bucket prefixes, patterns such as 'talks/*.mp4', or files."""
    out: str
    """Folder or bucket prefix for the tables."""
    runs: str
    """Folder or bucket prefix of trained models."""
    store: str
    """Feature store: a folder or bucket prefix."""
    template: str | None = None
    """The challenge's template: predict the tracks that it names, instead of every visible person."""
    hints: str | None = None
    """CSV of points (track, frame, x, y) on the person of a track of the template."""
    best: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """best.json of a search: use the settings that it found."""
    folds: int = 0
    """Use the fusions that were trained with this number of --folds."""
    people: People = "all"
    """People to predict: everyone visible, the main person, or the left or right one of two."""
    shard: str = "1/1"
    """K/N: only part K of N of the videos; the command without it then makes OUT/videos.csv and the report."""
    plan: bool = False
    """Print the work to do, its estimated time and possible problems, and stop."""
    export: Format | None = None
    """elan: also write OUT/<video>.eaf, which ELAN opens beside the video: a tier per person, valence and arousal."""
    report: bool = True
    """Make a report of pages and films: OUT/report/index.html."""


def work(args: Predict) -> int:
    """Extracts, predicts, prints where the tables are; the exit code."""
    from affect.corpus import hints
    from affect.corpus.videos import WHOLE, Shard
    from affect.pipeline.extract import extract
    from affect.pipeline.predict import exit_code, export, predict, tracks_in
    from affect.pipeline.report import films, pages
    from affect.pipeline.streams import check_inference
    from affect.progress import say
    from affect.settings.recipes import caveat_of
    from affect.storage.store import Store
    from affect.trained.models import load_models

    models = load_models(args.run, args.runs, args.folds)
    store, shard, points = Store(args.store), Shard.parse(args.shard), hints.read(args.hints)
    tracks, only = tracks_in(args.template, args.people, args.new_videos, shard)
    if args.plan:
        from affect.pipeline import forecast

        planned, probed = forecast.extraction(args.run, args.new_videos, store, tracks or [], only=only, shard=shard)
        return forecast.prediction(planned, args.run, probed, models, store, report=args.report).show()
    check_inference(args.run.inference)
    summary = extract(args.run, args.new_videos, store, tracks=tracks, only=only, shard=shard)
    given, whom = (args.run, summary.videos, models, store, args.out), args.people if tracks is None else tracks
    outcomes = predict(*given, whom=whom, hints=points, summary=shard == WHOLE)
    frames, people = (sum(row[name] for row in outcomes) for name in ("frames", "people"))
    say(f"predict: {len(outcomes)} videos, {people} people, {frames} frames: {files.absolute(args.out)}")
    if args.export:
        say(f"predict: {export(summary.videos, outcomes, args.out)} files for ELAN: {files.absolute(args.out)}/*.eaf")
    if args.report and shard == WHOLE:
        films(args.run, summary.videos, store, args.out, points)
        pages(args.out)
    if caveat := caveat_of(args.run.name):
        say(caveat)
    return exit_code(outcomes, summary.exit_code)


NEEDS = ("affect.pipeline.predict", "affect.pipeline.report")
UNLISTED = (*Run.fields_of_systems().values(), "workers", "description", "labels")
"""Settings that help does not list: the trained models fix them, or prediction does not read them."""
main = job.entry(Predict, work, ("store", "out"), needs=NEEDS, trained=True, unlisted=UNLISTED)

if __name__ == "__main__":
    main()
