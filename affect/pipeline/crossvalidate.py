"""Training without a development set: folds of videos, each once to be judged on, once to select epochs on.

RUNS/folds/...      the models of the folds, as RUNS has those of a training
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from jaxtyping import Float
from numpy import ndarray
from rich.console import Console

from affect.corpus.affwild2 import Split
from affect.evaluation.evaluate import fill_missing
from affect.evaluation.results import Answers, Truth, scores_table
from affect.pipeline.judge import judge
from affect.pipeline.train import fold_videos, sizes, train
from affect.progress import say
from affect.settings.run import Run
from affect.storage import files
from affect.storage.store import Store
from affect.tracks.tables import TrackRef
from affect.trained.models import Model

MIN_FOLDS = 3
"""One to learn from, one to select on, one to be judged on."""


def cross_validate(
    run: Run,
    refs: Sequence[TrackRef],
    golds: Mapping[str, Float[ndarray, "_ 2"]],
    store: Store,
    runs: str,
    num_folds: int,
) -> list[Answers]:
    """Train on folds, say what systems score on videos that they never saw, then train the models that are kept.

    For each fold models learn from the others but one, on which their epochs are selected. The models that are kept
    learn from all folds but the first, on which theirs are.

    Args:
        run: the run.
        refs: assembled tracks, all of them of the training split.
        golds: their annotations.
        store: where tracks are.
        runs: where models go.
        num_folds: folds that videos are dealt to, the tracks of a video together; as many as videos leaves one out.

    Returns:
        What each system says of every track, by models that never saw its video.

    Raises:
        ValueError: there are fewer than three folds, or fewer videos than folds.
    """
    frames = sizes(refs, store)
    if num_folds < MIN_FOLDS:
        raise ValueError(f"--cross-validate {num_folds}: give {MIN_FOLDS} to {len(frames)}, the number of videos")
    if len(frames) < num_folds:
        raise ValueError(f"--cross-validate {num_folds}: there are {len(frames)} videos with labels, give at most that")
    parts = fold_videos(frames, num_folds)
    answers: dict[str, Answers] = {}
    for number, part in enumerate(parts):
        say(f"cross-validation: fold {number + 1} of {num_folds}, judged on {', '.join(sorted(part))}")
        following = parts[(number + 1) % num_folds]
        own = [replace(ref, split=_split(ref.video, part, following)) for ref in refs]
        seen = [ref for ref in own if ref.split != "held_out"]
        models = train(
            replace(run, name=f"{run.name}-{number + 1}of{num_folds}"), seen, store, files.join(runs, "folds")
        )
        judged = judge(run, models, [ref for ref in own if ref.split == "held_out"], store)
        for model in models:
            said = {name: each.prediction for name, each in judged[model.address].items()}
            known = answers.get(model.title, _none(model))
            answers[model.title] = replace(known, tracks={**known.tracks, **fill_missing(said, model.training_mean)})
    kept = [replace(ref, split=_split(ref.video, set(), parts[0])) for ref in refs]
    say(f"cross-validation: the models that are kept, selected on {', '.join(sorted(parts[0]))}")
    train(run, kept, store, runs)
    truth = Truth({ref.name: golds[ref.name] for ref in refs}, {ref.name: ref.video for ref in refs})
    title = f"CCC [95 % interval over videos] of {num_folds} folds, each by models that never saw its videos"
    Console(width=400).print(scores_table(list(answers.values()), truth, title))
    return list(answers.values())


def _split(video: str, judged: set[str], selected: set[str]) -> Split:
    return "held_out" if video in judged else "development" if video in selected else "train"


def _none(model: Model) -> Answers:
    return Answers(model.title, model.modalities, {})
