"""Score predictions on annotated people and write the challenge's submission file.

    python jobs/evaluate.py RECIPE --predictions URI --labels DIR [--template FILE]

One row per system, with a bootstrap interval over tracks.
"""

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from affect import files
from affect.config import Run
from affect.corpus import affwild2
from affect.pipeline import job
from affect.pipeline.evaluate import read_predictions, score_systems, table
from affect.pipeline.progress import say
from affect.submission import fill, read_template


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score predictions on annotated people, one row per system, and fill the challenge's template."""

    run: Annotated[Run, tyro.conf.arg(name="")]
    """Every setting of the recipe."""
    out: Annotated[str, tyro.conf.arg(name="predictions")]
    """Folder of predictions."""
    truth: Annotated[str | None, tyro.conf.arg(name="labels")]
    """Folder of <track>.txt annotations; None writes the submission alone."""
    template: str | None = None
    """The challenge's template; its rows are filled and written beside the predictions."""


def work(args: Evaluate) -> int:
    """Score, print the table, write the submission."""
    predictions = read_predictions(args.out)
    if args.truth:
        scores = score_systems(predictions, affwild2.read_folder(args.truth))
        Console(width=120).print(table(scores, args.truth))
    say(f"predictions: {files.absolute(args.out)}")
    if args.template:
        rows = read_template(files.read(args.template).decode(), args.template)
        path = files.join(files.absolute(args.out), "submission.txt")
        files.write(path, fill(rows, {name: p.main for name, p in predictions.items()}).encode())
        say(f"submission:  {path}")
    return 0


if __name__ == "__main__":
    job.main(Evaluate, work)
