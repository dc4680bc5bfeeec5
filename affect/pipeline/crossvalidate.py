"""Cross-validation: training without a development set; every fold of videos is scored once.

RUNS/folds/...      models of the folds, laid out as RUNS
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from jaxtyping import Float
from numpy import ndarray
from rich.console import Console

from affect.corpus.affwild2 import Split
from affect.evaluation.evaluate import fill_missing
from affect.evaluation.results import Answers, Truth, scores_table
from affect.learning.folds import of_same_people
from affect.modalities import SYSTEMS
from affect.pipeline.judge import judge
from affect.pipeline.train import train
from affect.progress import say
from affect.settings.run import Run
from affect.storage import files
from affect.storage.store import Store
from affect.tracks.tables import TrackRef
from affect.trained.folds import folds_of
from affect.trained.models import Model

MIN_FOLDS = 3
"""One fold to train on, one to select the epoch on, one to score."""


def cross_validate(
    run: Run,
    refs: Sequence[TrackRef],
    golds: Mapping[str, Float[ndarray, "_ 2"]],
    store: Store,
    runs: str,
    num_folds: int,
) -> list[Answers]:
    """Scores a run's systems on videos that their models were not trained on, then trains the final models.

    The models of a fold are scored on it, select their epoch on the next fold, and are trained on the others. The final
    models select their epoch on the first fold and are trained on the others. Systems that are solved in closed form
    select no epoch and are trained on all other folds, finally on all.

    Args:
        run: the run.
        refs: assembled tracks, all of the training split.
        golds: annotations by track.
        store: store of the tracks.
        runs: folder of the models.
        num_folds: number of folds of videos; the tracks of a video and the videos of a person stay together.

    Returns:
        Predictions of each system for every track, by models that were not trained on its video.

    Raises:
        ValueError: there are fewer than three folds, or fewer videos than folds.
    """
    parts = _parts(refs, store, num_folds)
    selects = not all(SYSTEMS[system].solved for system in run.systems)
    answers: dict[str, Answers] = {}
    for number, part in enumerate(parts):
        say(f"cross-validation: fold {number + 1} of {num_folds}, judged on {', '.join(sorted(part))}")
        following = parts[(number + 1) % num_folds] if selects else set()
        rotated = [replace(ref, split=_split(ref.video, part, following)) for ref in refs]
        given = [ref for ref in rotated if ref.split != "held_out"]
        models = train(
            replace(run, name=f"{run.name}-{number + 1}of{num_folds}"), given, store, files.join(runs, "folds")
        )
        judged = judge(run, models, [ref for ref in rotated if ref.split == "held_out"], store)
        for model in models:
            predictions = {name: each.prediction for name, each in judged[model.address].items()}
            known = answers.get(model.title, _none(model))
            answers[model.title] = replace(
                known, tracks={**known.tracks, **fill_missing(predictions, model.training_mean)}
            )
    last = parts[0] if selects else set()
    kept = [replace(ref, split=_split(ref.video, set(), last)) for ref in refs]
    say("cross-validation: the final models" + (f", selected on {', '.join(sorted(last))}" if last else ""))
    train(run, kept, store, runs)
    truth = Truth({ref.name: golds[ref.name] for ref in refs}, {ref.name: ref.shows or ref.video for ref in refs})
    over = "people" if any(ref.shows for ref in refs) else "videos"
    title = f"CCC [95 % interval over {over}] of {num_folds} folds, each by models that never saw its videos"
    Console(width=400).print(scores_table(list(answers.values()), truth, title))
    return list(answers.values())


def _parts(refs: Sequence[TrackRef], store: Store, num_folds: int) -> list[set[str]]:
    """Videos of each fold.

    Raises:
        ValueError: as :func:`cross_validate`.
    """
    most = len(of_same_people((ref.video, ref.shows) for ref in refs))
    if num_folds < MIN_FOLDS:
        raise ValueError(f"--cross-validate {num_folds}: give {MIN_FOLDS} to {most}, the number of videos")
    if most < num_folds:
        raise ValueError(
            f"--cross-validate {num_folds}: there are {most} videos with labels (those of one person count as one), "
            "give at most that"
        )
    return folds_of(refs, store, num_folds)


def _split(video: str, judged: set[str], selected: set[str]) -> Split:
    """Split of a video, given the videos that are scored and those that select the epoch."""
    return "held_out" if video in judged else "development" if video in selected else "train"


def _none(model: Model) -> Answers:
    """Predictions of a model, of no track yet."""
    return Answers(model.title, model.modalities, {})
