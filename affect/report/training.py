"""Page of a training: scores and curves of its models."""

import json
from collections.abc import Sequence

from affect.progress import say
from affect.report.pages import training_page
from affect.settings.recipes import caveat_of
from affect.storage import files
from affect.trained.models import Model


def training_report(runs: str, name: str, models: Sequence[Model]) -> None:
    """Prints the scores of a training's models and writes the page with their curves.

    Args:
        runs: folder of trained models.
        name: name of the training.
        models: the models.
    """
    shown = [
        {
            "title": model.title,
            "address": model.address,
            "best": model.best,
            "scored_on": model.scored_on,
            "settings": model.settings,
            "history": json.loads(files.read(files.join(model.uri, "history.json"))),
        }
        for model in models
    ]
    for model in models:
        say(f"{model.title}: {model.score_words}, {model.uri}")
    path = files.join(files.absolute(runs), f"{name}.html")
    files.write(path, training_page(f"Training of recipe {name}", shown, caveat_of(name)).encode())
    say(f"report: {path}")
