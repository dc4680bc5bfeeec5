"""Prediction as a function, for notebooks and other programs."""

import pyarrow as pa

from affect import files
from affect.pipeline.extract import extract
from affect.pipeline.job import start_ray
from affect.pipeline.predict import People, load_models
from affect.pipeline.predict import predict as predict_all
from affect.pipeline.store import Store, read_table
from affect.recipes import RECIPES


def predict(
    videos: str,
    *,
    recipe: str,
    runs: str | None,
    store: str | None,
    out: str | None,
    people: People,
) -> pa.Table:
    """What :func:`affect.predict` does."""
    if recipe not in RECIPES:
        raise ValueError(f"recipe {recipe!r} is none of {', '.join(RECIPES)}")
    make_run, make_places = RECIPES[recipe]
    run, places = make_run(), make_places()
    start_ray()
    models = load_models(run, runs or places.runs)
    features = Store(store or places.store)
    target = files.absolute(out or files.join(features.uri, "_notebook"))
    found = extract(run, videos, features)
    rows = predict_all(run, found.videos, models, features, target, people=people)
    usable = [row["video"] for row in rows if row["status"] != "failed"]
    if not usable:
        raise ValueError(f"{videos}: nothing can be predicted; {rows[0]['video']}: {rows[0]['reason']}")
    tables = [read_table(files.join(target, f"{stem}.parquet")) for stem in usable]
    return pa.concat_tables([table.replace_schema_metadata() for table in tables])
