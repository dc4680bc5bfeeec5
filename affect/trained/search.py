"""A search over a system's settings: its trainings, its space and its folder.

RUNS/tune/<name>/                      Ray Tune's own files, with TensorBoard logs of every trial
RUNS/tune/<name>/space.json            the searched space: another space needs another name
RUNS/tune/<name>/{trials.csv,best.json,index.html}
RUNS/tune/<name>.checkpoints/<trial>/  checkpoints of the trials, deleted when the search ends
"""

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any

from affect.settings.address import address
from affect.settings.spaces import Range, Space
from affect.trained.folds import Part
from affect.trained.training import Training

METRIC = "mean"
"""Score of a trial: mean of the CCC of valence and arousal."""
REDUCTION = 4
"""ASHA continues the best quarter at each rung; the best third costs a third more epochs and finds the same winner."""
FIRST_RUNG = 10
"""ASHA's first rung is after this fraction of the epochs: a tenth."""


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search.

    Args:
        name: name of the search.
        space: checked values and ranges, by path of a setting.
        num_trials: number of trials.
        folds: folds of training videos, whose mean score is a trial's score; 0: the score on the development split.
        seed: seed of the proposed settings.
    """

    name: str
    space: Space
    num_trials: int
    folds: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Search:
    """A search over the settings of a run's last system.

    Args:
        training: the training with the run's own settings.
        parts: training and scored tracks of a trial; several for folds.
        space: checked values and ranges, by path of a setting.
        num_trials: number of trials.
        folder: folder of the search: RUNS/tune/<name>.
        objective: the score, in words.
        folds: folds of the embeddings that the system reads; 0: in the sample.
        seed: seed of the proposed settings.
    """

    training: Training
    parts: tuple[Part, ...]
    space: Space
    num_trials: int
    folder: str
    objective: str
    folds: int
    seed: int

    @property
    def checkpoints(self) -> str:
        """Folder of the trials' checkpoints."""
        return f"{self.folder}.checkpoints"

    @property
    def max_epochs(self) -> int:
        """Most epochs of a trial."""
        return int(self.training.run.settings_of(self.training.system).fit.max_epochs)

    @property
    def first_rung(self) -> int:
        """Epochs after which trials are compared for the first time."""
        return max(1, self.max_epochs // FIRST_RUNG)

    @property
    def rungs(self) -> list[int]:
        """Epochs after which trials are compared."""
        epochs = itertools.accumulate(itertools.repeat(REDUCTION), lambda at, by: at * by, initial=self.first_rung)
        return list(itertools.takewhile(lambda at: at < self.max_epochs, epochs))

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that identifies the search, as ``space.json`` stores it."""
        plain = {p: dataclasses.asdict(v) if isinstance(v, Range) else list(v) for p, v in self.space.items()}
        training = self.training
        return {
            "system": training.system,
            "space": plain,
            "objective": self.objective,
            "trials": self.num_trials,
            "seed": self.seed,
            "workers": dataclasses.asdict(training.run.workers),
            "defaults": address(training.run.settings_of(training.system), training.address, self.parts),
        }
