"""Forecast of a job: its work, time and possible problems; and the part of it about training."""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field

from affect.console.exits import EXIT_OK
from affect.corpus import affwild2
from affect.corpus.affwild2 import Split
from affect.modalities import SYSTEMS
from affect.plan.addresses import feature_addresses
from affect.plan.clips import Video
from affect.progress import format_duration, say
from affect.settings.run import Run
from affect.storage import files, speed
from affect.storage.state import ProbeSummary
from affect.trained.models import load_model
from affect.trained.runs import read_run, run_name

MAX_NAMED = 20
"""Most unusable labels that are named."""


@dataclass
class Forecast:
    """Estimated work, time and warnings of a job.

    Args:
        lines: work, one line each.
        warnings: possible problems.
        seconds: estimated time; None if the time of any part is unknown.
    """

    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float | None = 0.0

    def add(self, seconds: float | None) -> None:
        """Adds the time of a part; None makes the total unknown."""
        self.seconds = None if self.seconds is None or seconds is None else self.seconds + seconds

    def show(self) -> int:
        """Prints the forecast; returns the exit code."""
        for line in self.lines:
            say(line)
        for warning in self.warnings:
            say(f"plan: WARNING: {warning}")
        total = {None: "; how long it takes is not known yet", 0.0: ", and nothing is to do"}
        known = total.get(self.seconds, f"; in all about {format_duration(self.seconds or 0.0)}")
        say(f"plan: nothing was done{known}")
        return EXIT_OK


def forecast_training(
    found: Forecast,
    run: Run,
    probed: Sequence[Video],
    labels: Mapping[Split, Mapping[str, Sized]],
    runs: str,
    folds: int,
    rotations: int = 0,
) -> Forecast:
    """Adds the trainings of a run to a forecast.

    Args:
        found: forecast of the extraction.
        run: the run.
        probed: the videos.
        labels: annotations by split and track.
        runs: folder of the models.
        folds: folds of the embeddings that fusions train on; 0: in the sample.
        rotations: folds of a cross-validation; each is a training of its own, besides that of the final models.

    Returns:
        The same forecast.
    """
    runs = files.absolute(runs)
    usable, unusable = _usable(probed, labels)
    found.warnings += unusable[:MAX_NAMED]
    if len(unusable) > MAX_NAMED:
        found.warnings.append(f"and {len(unusable) - MAX_NAMED} more labels")
    total = sum(head.num_frames for head in usable["train"])
    development = len(usable.get("development", ())) or rotations
    other = f"{rotations} folds" if rotations else f"{development} development tracks"
    found.lines.append(f"plan: {len(usable['train'])} training tracks, {total:,} frames; {other}")
    finished = _finished(run, runs, folds)
    solved = all(SYSTEMS[system].solved for system in run.systems)
    if not total or not (development or solved):
        found.warnings.append("it would not start: no annotated video is here for training, or none for development")
        return found
    for system in run.systems:
        if system in finished:
            found.lines.append(f"plan: {system}: there already, {finished[system]}, unless labels or features changed")
        else:
            times = 1 + rotations + (folds if folds and not run.reads(system) else 0)
            _add_system(found, run, system, total, times, runs)
    return found


def _usable(
    probed: Sequence[Video], labels: Mapping[Split, Mapping[str, Sized]]
) -> tuple[dict[Split, list[ProbeSummary]], list[str]]:
    """Probes of the videos of usable labels by split, and messages about the other labels."""
    heads = {entry.stem: entry.head for entry in probed if entry.head}
    stems = {entry.stem for entry in probed}
    usable: dict[Split, list[ProbeSummary]] = {split: [] for split in labels}
    messages = []
    for split, tracks in labels.items():
        for name, gold in tracks.items():
            message = ""
            try:
                if head := heads.get(affwild2.video_of(name, stems)):
                    message = affwild2.check_length(name, len(gold), head.num_frames, head.duration_s)
                    usable[split].append(head)
                else:
                    message = f"left out: track {name}: its video cannot be used"
            except affwild2.LabelError as error:
                message = f"left out: {error}"
            messages += [message] * bool(message)
    return usable, messages


def _add_system(found: Forecast, run: Run, system: str, num_frames: int, times: int, runs: str) -> None:
    """Adds the trainings of one system: ``times`` models on ``num_frames`` training frames each."""
    if SYSTEMS[system].solved:
        found.lines.append(f"plan: {system}: {times} x solved in closed form, seconds")
        return
    fit = run.settings_of(system).fit
    known = speed.read(runs, *speed.training_key(run, system))
    amount = num_frames * times
    if known is None:
        found.lines.append(f"plan: {system}: {times} x at most {fit.max_epochs} epochs, not timed yet")
        found.add(None)
        return
    epochs = min(fit.max_epochs, known.amount / known.runs / amount)
    likely, most = (amount * n * known.work_s / known.amount for n in (epochs, fit.max_epochs))
    found.lines.append(
        f"plan: {system}: {times} x at most {fit.max_epochs} epochs, {format_duration(likely)} for {epochs:.0f} as "
        f"before, {format_duration(most)} at most"
    )
    found.add(likely)


def _finished(run: Run, runs: str, folds: int) -> dict[str, str]:
    """Folders of the recipe's latest models that have the run's settings and features, by system."""
    found: dict[str, str] = {}
    features = feature_addresses(run)
    for system, mark in read_run(runs, run_name(run.name, folds)).items():
        if system not in run.systems:
            continue
        model = load_model(files.join(runs, system, mark))
        same = model.settings_address == SYSTEMS[system].settings_address(run)
        fresh = all(found.get(m) for m in run.reads(system)) or not run.reads(system)
        if same and fresh and all(features.get(m) == at for m, at in model.features.items()):
            found[system] = model.uri
    return found
