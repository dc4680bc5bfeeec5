"""Scores trained models on annotated videos."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from affect.corpus.hints import Points
from affect.corpus.labels import read_truth
from affect.corpus.videos import Places, find
from affect.evaluation.evaluate import Evaluation, answers_of, incomplete, overlap_with_training
from affect.evaluation.judged import usable
from affect.evaluation.results import Truth
from affect.pipeline.assemble import assemble
from affect.pipeline.judge import judge
from affect.pipeline.probe import probe_videos
from affect.plan.addresses import wanted_features
from affect.progress import say
from affect.settings.run import Run
from affect.storage import files
from affect.storage.store import Store
from affect.tracks.labels import frame_labels
from affect.tracks.tables import load_track
from affect.trained.models import Model, all_models


def score_runs(
    run: Run, videos: Places, labels: str, store: Store, runs: str, hints: Mapping[str, Points]
) -> Evaluation:
    """Scores every trained model on annotated tracks.

    Args:
        run: the run, for features and actors.
        videos: places of the annotated videos, which are extracted.
        labels: annotations of one set, or of both sets; then the development set is scored.
        store: store of the features.
        runs: folder of the models.
        hints: points on the person that a track means, by track.

    Raises:
        ValueError: no model or no track can be used.
    """
    models = usable(all_models(files.absolute(runs)), run)
    if not models:
        raise ValueError(f"{runs}: no model was trained on the features that recipe {run.name} extracts")
    return score_models(run, models, videos, labels, store, hints)


def score_models(
    run: Run, models: Sequence[Model], videos: Places, labels: str, store: Store, hints: Mapping[str, Points]
) -> Evaluation:
    """Scores some models on annotated tracks.

    Args:
        run: as in :func:`score_runs`.
        models: the models.
        videos: as in :func:`score_runs`.
        labels: as in :func:`score_runs`.
        store: as in :func:`score_runs`.
        hints: as in :func:`score_runs`.

    Raises:
        ValueError: no track can be used.
    """
    run = _with_ratings(run, models)
    given = read_truth(labels, run.labels)
    found = find(videos)
    probed = probe_videos(found, store, wanted_features(run, found.videos, given.names).prompts)
    _, gold = frame_labels(given, run, probed, store)
    refs, golds = assemble(run, probed, gold, store, hints), gold["held_out"]
    split, who = overlap_with_training(models, refs)
    judged = judge(run, models, refs, store)
    titles = [model.title for model in models]
    answers = [
        answers_of(model, judged[model.address], "" if titles.count(model.title) == 1 else f", {model.address[:6]}")
        for model in models
    ]
    truth = Truth({ref.name: golds[ref.name] for ref in refs}, {ref.name: ref.video for ref in refs})
    for model in models:
        if unknown := incomplete({name: each.prediction for name, each in judged[model.address].items()}):
            say(f"{model.title} knows nothing of {', '.join(unknown)}: they are given the training mean")
    time_s = {ref.name: load_track(store, ref, ()).time_s for ref in refs}
    folders = ", ".join(sorted({model.uri.rsplit("/", 2)[0] for model in models}))
    return Evaluation(f"models of {folders} on {labels}, {who}", answers, truth, {}, time_s, split)


def _with_ratings(run: Run, models: Sequence[Model]) -> Run:
    """The run whose tracks also have the encoders' ratings that models read."""
    for model in models:
        rated = set(model.modalities) if model.tables != model.modalities else set()
        if rated - set(run.rated):
            field, systems = run.fields_of_systems()[model.system], dict.fromkeys((*run.systems, model.system))
            wanted = tuple(
                m for m in run.all_modalities() if m in rated | set(run.rates(model.system)) & set(run.rated)
            )
            run = replace(run, systems=tuple(systems), **{field: replace(getattr(run, field), modalities=wanted)})
    return run
