"""Extracts the features of labelled videos and trains a recipe's models on them; or trains the frame encoder.

python jobs/train.py RECIPE --videos URI --labels DIR --store URI --runs URI [--folds K] [--from best.json]
python jobs/train.py grada --images MANIFEST [MANIFEST ...] --development MANIFEST --runs DIR

Existing results are skipped; a training that was killed resumes.
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
    """Extract the features of labelled videos and train a recipe's models: face, behaviour, audio, then the fusions."""

    run: Annotated[Run, tyro.conf.arg(name="")]
    """Settings of the recipe."""
    videos: tuple[str, ...]
    """Labelled videos: folders, bucket prefixes, patterns or files."""
    labels: str
    """Annotations: a folder with Train_Set and Validation_Set, of which the latter may be missing with
    --cross-validate; or ratings over time, a file or a folder (see --labels.range in --help-all)."""
    store: str
    """Feature store: a folder or bucket prefix."""
    runs: str
    """Folder or bucket prefix for the models."""
    folds: int = 0
    """Folds of videos: embeddings that fusions train on come from models trained without the video; 0: no folds."""
    cross_validate: int = 0
    """Folds of videos for labels without Validation_Set: every fold is scored once, by models trained on the others."""
    best: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """best.json of a search: use the settings that it found."""
    hints: str | None = None
    """CSV of points (track, frame, x, y) on the person of a track, where the track's name does not identify them."""
    plan: bool = False
    """Print the work to do, its estimated time and possible problems, and stop."""


@dataclass(frozen=True, kw_only=True)
class TrainEncoder:
    """Train the frame encoder, GRADA, on pictures labelled with expressions, valence and arousal, or both."""

    run: Annotated[EncoderRun, tyro.conf.arg(name="")]
    """Settings of the recipe."""
    images: tuple[str, ...]
    """Manifests of training pictures (see affect/corpus/images.py), one or more datasets."""
    development: tuple[str, ...]
    """Manifests of pictures of other people, with valence and arousal, to select the best epoch on."""
    held_out: tuple[str, ...] = ()
    """Manifests of pictures of further people, to report scores on."""
    runs: str = "runs"
    """Folder for the encoder: RUNS/grada/<address>."""


def work(args: Train | TrainEncoder) -> int:
    """Trains the models that are missing; the exit code."""
    from affect.console.forecast import forecast_training
    from affect.corpus import hints, labels
    from affect.pipeline import encoder, forecast
    from affect.pipeline.assemble import assemble
    from affect.pipeline.crossvalidate import cross_validate
    from affect.pipeline.demo import prepare_default
    from affect.pipeline.extract import extract
    from affect.pipeline.train import check, train
    from affect.storage.store import Store
    from affect.tracks.labels import frame_labels

    if isinstance(args, TrainEncoder):
        encoder.train_on(args.run, args.images, args.development, args.held_out, args.runs)
        return 0
    prepare_default(args.run, args.videos)
    folded, store = args.cross_validate, Store(args.store)
    given = labels.read(args.labels, args.run.labels, check(args.run, args.folds, folded))
    if args.plan:
        found, probed = forecast.extraction(args.run, args.videos, store, given.names)
        _, gold = frame_labels(given, args.run, probed, store, plan=True)
        return forecast_training(found, args.run, probed, gold, args.runs, args.folds, folded).show()
    videos = extract(args.run, args.videos, store, tracks=given.names).videos
    run, gold = frame_labels(given, args.run, videos, store)
    refs = assemble(run, videos, gold, store, hints.read(args.hints), given.persons)
    if folded:
        cross_validate(run, refs, gold["train"], store, args.runs, folded)
    else:
        train(run, refs, store, args.runs, folds=args.folds)
    return 0


grada = TrainEncoder(run=recipes.grada(), images=tyro.MISSING, development=tyro.MISSING)
main = job.entry(Train, work, ("store", "runs"), {"grada": grada}, needs=("affect.pipeline.train",))

if __name__ == "__main__":
    main()
