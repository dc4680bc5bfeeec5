"""Runs every trained model on labelled tracks."""

from collections.abc import Sequence

import torch

from affect.evaluation.judged import Judged, judged_name, read_judged
from affect.pipeline import graph
from affect.progress import Meter, say
from affect.settings.run import Run
from affect.storage import files
from affect.storage.store import Store
from affect.tracks.tables import TrackRef
from affect.trained.models import Model, without_people


def judge(run: Run, models: Sequence[Model], refs: Sequence[TrackRef], store: Store) -> dict[str, dict[str, Judged]]:
    """Predictions of every model on every track; stored ones are read.

    Args:
        run: the run, for its actors.
        models: from :func:`affect.evaluation.judged.usable`.
        refs: assembled tracks.
        store: store of the tracks.

    Returns:
        Predictions by model address and track.
    """
    present = {model.address: {name for name, _, _ in files.walk(files.join(model.uri, "judged"))} for model in models}
    todo = [
        {"ref": ref, "unit": ref.name, "length_s": 0.0}
        for ref in refs
        if any(judged_name(model, ref) not in present[model.address] for model in models)
    ]
    if todo:
        for model in models:
            model.network(torch.device("cpu"))  # damaged weights are one error here instead of one per actor
        say(f"evaluate: {len(models)} models on {len(todo)} tracks, fusions also without each modality")
        with Meter("evaluate", float(len(todo)), "tracks") as meter:
            for _ in graph.judge(todo, run, [without_people(model) for model in models], store):
                meter.advance(1.0)
    return {model.address: {ref.name: read_judged(model, ref) for ref in refs} for model in models}
