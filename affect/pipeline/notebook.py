"""Prediction as a function, for notebooks and other programs."""

import pyarrow as pa

from affect.corpus.videos import Places
from affect.modalities import recipes
from affect.pipeline.extract import extract
from affect.pipeline.job import start_ray
from affect.pipeline.predict import check_people
from affect.pipeline.predict import predict as predict_all
from affect.settings.names import People
from affect.settings.recipes import corpus_places
from affect.settings.run import Run
from affect.storage import files
from affect.storage.store import Store, read_table
from affect.trained.models import load_models
from affect.trained.runs import run_names, trained_run


def predict(
    videos: Places,
    *,
    recipe: str | None,
    runs: str | None,
    store: str | None,
    out: str | None,
    people: People,
) -> pa.Table:
    """Implements :func:`affect.predict`: extracts videos, predicts them, and returns their tables as one.

    Args:
        videos: places of the videos.
        recipe: name of the recipe or training; None for the only training of ``runs``, or the demo.
        runs: folder of the models; None for the recipe's default.
        store: feature store; None for that of the training.
        out: folder of the tables; None for a folder in the store.
        people: people to predict.

    Raises:
        ValueError: people are unknown, there is no such training, or no video can be predicted.
    """
    check_people(people)
    run, runs, default_store = _training(recipe, runs)
    start_ray()
    models = load_models(run, runs)
    features = Store(store or default_store)
    target = files.absolute(out or files.join(features.uri, "_notebook"))
    found = extract(run, videos, features)
    rows = predict_all(run, found.videos, models, features, target, whom=people)
    usable = [row["video"] for row in rows if row["status"] != "failed"]
    if not usable:
        raise ValueError(f"nothing can be predicted; {rows[0]['video']}: {rows[0]['reason']}")
    tables = [read_table(files.join(target, f"{stem}.parquet")) for stem in usable]
    return pa.concat_tables([table.replace_schema_metadata() for table in tables])


def _training(recipe: str | None, runs: str | None) -> tuple[Run, str, str]:
    """Run of a training, folder of its models, and its feature store."""
    if recipe is None and runs is not None:
        names = run_names(runs)
        if len(names) != 1:
            raise ValueError(
                f"{runs} has {', '.join(names)}: name one with recipe=" if names else f"{runs}: no training"
            )
        recipe = names[0]
    recipe = recipe or "demo"
    known = recipes()
    if recipe not in known and runs is None:
        raise ValueError(
            f"recipe {recipe!r} is none of {', '.join(known)}; with runs= any training of theirs can be named"
        )
    make_run, make_places = known.get(recipe, (None, corpus_places))
    here, places = make_run and make_run(), make_places()
    runs = runs or places.runs
    trained = trained_run(runs, recipe, here)
    run = trained.run if trained else here
    if run is None:
        raise ValueError(f"{runs} has no training {recipe}, but {', '.join(run_names(runs)) or 'none'}")
    return run, runs, trained.store_or(places.store) if trained else places.store
