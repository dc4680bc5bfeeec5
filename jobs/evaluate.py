"""Scores predictions or all trained models on annotated people, and writes the challenge's submission file.

    python jobs/evaluate.py RECIPE --predictions URI --labels DIR [--template FILE]
    python jobs/evaluate.py RECIPE --runs URI --labels DIR --videos URI --store URI [--paper]

Prints a row per system, with a 95 % interval over videos. With --runs every model in RUNS is scored, fusions also
without each of their modalities, and tables per system, video and second are written to RUNS/evaluation.
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from affect.pipeline import job
from affect.settings.run import Run


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score predictions or all trained models on annotated people, and fill in the challenge's template."""

    run: Annotated[Run, tyro.conf.arg(name="")]
    """Settings of the recipe."""
    out: Annotated[str, tyro.conf.arg(name="predictions")]
    """Folder of predictions to score, without --runs."""
    truth: Annotated[str | None, tyro.conf.arg(name="labels")]
    """Folder of <track>.txt annotations, or of Train_Set and Validation_Set, of which the latter is scored; or
    ratings over time; None: write only the submission."""
    runs: str | None = None
    """Folder of trained models: score all of them."""
    new_videos: Annotated[tuple[str, ...], tyro.conf.arg(name="videos")]
    """Annotated videos: folders, bucket prefixes, patterns or files; only with --runs."""
    store: str
    """Feature store; only with --runs."""
    template: str | None = None
    """The challenge's template: fill in its rows and write them beside the predictions, as submission.txt."""
    hints: str | None = None
    """CSV of points (track, frame, x, y) on the person of a track; only with --runs."""
    paper: bool = False
    """Print the published numbers, too."""


def work(args: Evaluate) -> int:
    """Scores, prints the tables and writes the submission; the exit code."""
    from rich.console import Console

    from affect.corpus import hints
    from affect.evaluation.evaluate import report, score_predictions
    from affect.evaluation.submission import fill, read_template
    from affect.pipeline.evaluate import score_runs
    from affect.pipeline.report import pages
    from affect.progress import say
    from affect.settings.recipes import caveat_of
    from affect.storage import files
    from affect.storage.store import Store

    console = Console(width=400)  # a narrower console would cut numbers off
    if caveat := caveat_of(args.run.name):
        say(caveat)
    if args.runs:
        if args.template or not args.truth:
            raise ValueError(
                "--runs scores models on --labels; a --template is filled from --predictions, without --runs"
            )
        where = (args.new_videos, args.truth, Store(args.store), args.runs, hints.read(args.hints))
        report(score_runs(args.run, *where), console, paper=args.paper, folder=files.join(args.runs, "evaluation"))
        return 0
    predictions = score_predictions(args.out, args.truth, args.run.labels)
    if predictions.truth.gold:
        report(predictions, console, paper=args.paper)
        pages(args.out, predictions)
    say(f"predictions: {files.absolute(args.out)}")
    if args.template:
        rows = read_template(files.read_text(args.template), args.template)
        path = files.join(files.absolute(args.out), "submission.txt")
        files.write(path, fill(rows, predictions.main).encode())
        say(f"submission:  {path}")
    return 0


main = job.entry(
    Evaluate, work, ("runs", "out"), needs=("affect.pipeline.evaluate", "affect.pipeline.report"), trained=True
)

if __name__ == "__main__":
    main()
