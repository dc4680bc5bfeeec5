"""Searches settings of a system, trains with the best and with the default ones, and scores both on held-out people.

python jobs/tune.py RECIPE --system dcmmoe --trials 20 [--folds K] [--space PATH=VALUE,VALUE PATH=LOW..HIGH ...]

The same command again resumes a search that was stopped.
"""

from dataclasses import dataclass, replace
from typing import Annotated

import tyro

from affect.pipeline import job
from affect.settings import spaces
from affect.settings.labels import AUTO
from affect.settings.run import Run
from affect.storage import files


@dataclass(frozen=True, kw_only=True)
class Tune:
    """Search settings of a system, train with the best and with the default ones, and score both on held-out people."""

    run: Annotated[Run, tyro.conf.arg(name="")]
    """Settings of the recipe; the first trial uses them."""
    system: str | None = None
    """System whose settings are searched; the recipe's last if not given."""
    trials: int = 20
    """Number of trials."""
    space: tuple[str, ...] = ()
    """PATH=VALUE,VALUE or PATH=LOW..HIGH, as dcmmoe.fit.learning_rate=1e-4..1e-3; the system's space if not given."""
    folds: int = 0
    """Folds of training videos: a trial's score is their mean; 0: its score on the development set."""
    search_name: str | None = None
    """Name of the search; the system's if not given."""
    seed: int = 0
    """Seed of the proposed settings."""
    videos: tuple[str, ...]
    """Labelled videos: folders, bucket prefixes, patterns or files."""
    labels: str
    """Annotations: a folder with Train_Set and Validation_Set, or ratings over time with a column split."""
    store: str
    """Feature store: a folder or bucket prefix."""
    runs: str
    """Folder or bucket prefix for models and searches: RUNS/tune/<name>."""
    new_videos: Annotated[tuple[str, ...], tyro.conf.arg(name="held-out-videos")]
    """Videos of held-out people, for the final scores only."""
    truth: Annotated[str, tyro.conf.arg(name="held-out-labels")]
    """Annotations of the held-out videos; if they are those of --labels, only the development set is scored."""
    hints: str | None = None
    """CSV of points (track, frame, x, y) on the person of a track, where the track's name does not identify them."""

    def __post_init__(self) -> None:
        """Checks that the run has the system, and that labels are read alike in training and evaluation."""
        if self.system is not None:
            self.run.settings_of(self.system)
        if self.run.labels.lag_s == AUTO:
            raise ValueError("--labels.lag-s auto: train once, and give the numbers that it prints")


def work(args: Tune) -> int:
    """Searches, trains, scores and writes the results; the exit code."""
    from affect.console.exits import EXIT_PARTIAL
    from affect.corpus import hints, labels
    from affect.modalities import SYSTEMS
    from affect.pipeline.assemble import assemble
    from affect.pipeline.demo import prepare_default
    from affect.pipeline.extract import extract
    from affect.pipeline.train import check
    from affect.pipeline.tune import conclude, prepare, search
    from affect.storage.store import Store
    from affect.tracks.labels import frame_labels
    from affect.trained.search import SearchOptions

    system = args.system or args.run.systems[-1]
    run = replace(args.run, systems=(*args.run.reads(system), system))
    usual = SYSTEMS[system].demo_space if run.name == "demo" else SYSTEMS[system].space
    space = spaces.check(spaces.parse(args.space) if args.space else usual, run)
    prepare_default(run, args.videos)
    check(run, args.folds)
    store, given, points = Store(args.store), labels.read(args.labels, run.labels), hints.read(args.hints)
    found = extract(run, args.videos, store, tracks=given.names)
    sets, codes = [(args.videos, args.labels)], {found.exit_code}
    if files.absolute(args.truth).rstrip("/") != files.absolute(args.labels).rstrip("/"):
        sets.append((args.new_videos, args.truth))
        names = labels.read_truth(args.truth, run.labels).names
        codes.add(extract(run, args.new_videos, store, tracks=names).exit_code)
    _, gold = frame_labels(given, run, found.videos, store)
    refs = assemble(run, found.videos, gold, store, points, given.persons)
    options = SearchOptions(args.search_name or system, space, args.trials, args.folds, args.seed)
    prepared = prepare(run, refs, store, args.runs, options)
    trials = search(prepared)
    conclude(prepared, trials, sets, points)
    return EXIT_PARTIAL if any(trial.status == "failed" for trial in trials) else max(codes)


main = job.entry(Tune, work, ("store", "runs"), needs=("affect.pipeline.tune",))

if __name__ == "__main__":
    main()
