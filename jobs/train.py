"""Extract what a recipe's models read, and train them: face, behaviour, audio, and the fusions on top; or the encoder.

python jobs/train.py RECIPE --videos URI --labels DIR --store URI --runs URI [--folds K] [--from best.json]
python jobs/train.py grada --images MANIFEST [MANIFEST ...] --development MANIFEST --runs DIR

What is there is not done again; a training that was killed goes on where it was.
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from affect.pipeline import job
from affect.settings import recipes
from affect.settings.encoder import EncoderRun
from affect.settings.run import Run


@dataclass(frozen=True, kw_only=True)
class Train:
    """Extract what a recipe's models read, and train them: face, behaviour, audio, and the fusions on top."""

    run: Annotated[Run, tyro.conf.arg(name="")]
    """Every setting of the recipe."""
    videos: tuple[str, ...]
    """Folders, bucket prefixes, patterns or files: the labelled videos."""
    labels: str
    """Annotation folder with Train_Set and Validation_Set, or without the latter and --cross-validate."""
    store: str
    """Feature store."""
    runs: str
    """Where models go."""
    folds: int = 0
    """Folds of videos: tracks that fusions learn from are embedded by models that never saw their video; 0: by all."""
    cross_validate: int = 0
    """Folds of videos for labels without Validation_Set: each is judged on once, by models that never saw it; as many
    as there are videos leaves one out at a time."""
    best: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """best.json of a search of the recipe, whose settings are then used."""
    hints: str | None = None
    """CSV of points (track, frame, x, y) on the person that a track means, where its name does not tell."""
    plan: bool = False
    """Say what would be done, how long it takes and what may go wrong; do nothing."""


@dataclass(frozen=True, kw_only=True)
class TrainEncoder:
    """Train the frame encoder, GRADA, on labelled pictures: expressions, valence and arousal, or both."""

    run: Annotated[EncoderRun, tyro.conf.arg(name="")]
    """Every setting of the recipe."""
    images: tuple[str, ...]
    """Manifests of the pictures to learn from (see affect/corpus/images.py), several datasets at once."""
    development: tuple[str, ...]
    """Manifests of other people's pictures, with valence and arousal, to select the epoch on."""
    held_out: tuple[str, ...] = ()
    """Manifests of yet other people's pictures, to report on."""
    runs: str = "runs"
    """Folder where the encoder goes: RUNS/grada/<address>."""


def work(args: Train | TrainEncoder) -> int:
    """Train what is missing."""
    from affect.corpus import affwild2, hints
    from affect.pipeline import encoder
    from affect.pipeline.assemble import assemble
    from affect.pipeline.crossvalidate import cross_validate
    from affect.pipeline.demo import prepare_default
    from affect.pipeline.extract import extract
    from affect.pipeline.train import check, train
    from affect.storage.store import Store

    if isinstance(args, TrainEncoder):
        encoder.train_on(args.run, args.images, args.development, args.held_out, args.runs)
        return 0
    prepare_default(args.run, args.videos)
    check(args.run, args.folds)
    folded, store = args.cross_validate, Store(args.store)
    if folded and args.folds:
        raise ValueError("--folds and --cross-validate cannot be given together")
    labels = affwild2.read_training(args.labels) if folded else affwild2.read_splits(args.labels)
    if args.plan:
        from affect.pipeline import forecast

        found, probed = forecast.extraction(args.run, args.videos, store, affwild2.track_names(labels))
        return forecast.training(found, args.run, probed, labels, args.runs, args.folds, folded).show()
    videos = extract(args.run, args.videos, store, tracks=affwild2.track_names(labels)).videos
    refs = assemble(args.run, videos, labels, store, hints.read(args.hints))
    if folded:
        cross_validate(args.run, refs, labels["train"], store, args.runs, folded)
    else:
        train(args.run, refs, store, args.runs, folds=args.folds)
    return 0


grada = TrainEncoder(run=recipes.grada(), images=tyro.MISSING, development=tyro.MISSING)
main = job.entry(Train, work, ("store", "runs"), {"grada": grada}, needs=("affect.pipeline.train",))

if __name__ == "__main__":
    main()
