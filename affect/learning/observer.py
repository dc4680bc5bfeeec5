"""Progress of a training: time left, scores, and TensorBoard curves."""

from types import TracebackType
from typing import Any

from affect.learning.training import Epoch, Step
from affect.progress import Meter, say
from affect.storage import files


class Observer:
    """Shows progress with the time left, and writes TensorBoard curves beside the model.

    Args:
        name: name of the model.
        folder: folder of the model; curves are written to ``tensorboard`` in it.
        max_epochs: most epochs.
        rank: rank of this process; only rank 0 shows and writes.
    """

    def __init__(self, name: str, folder: str, max_epochs: int, rank: int) -> None:
        """Stores the arguments."""
        self._name, self._folder, self._max_epochs, self._silent = name, folder, max_epochs, rank != 0
        self._meter: Meter | None = None
        self._curves: Any = None
        self._note = ""
        self._step = 0

    def __enter__(self) -> "Observer":
        """Opens the TensorBoard writer on rank 0."""
        if not self._silent:
            from torch.utils.tensorboard import SummaryWriter  # takes 1.5 s to import

            self._curves = SummaryWriter(files.join(self._folder, "tensorboard"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the TensorBoard writer and the progress line."""
        if self._curves:
            self._curves.close()
        if self._meter:
            self._meter.__exit__(kind, error, trace)

    def step(self, step: Step) -> None:
        """Counts a step. The time left is an upper bound: training may stop before ``max_epochs``."""
        if self._silent:
            return
        done = (step.epoch - 1) * step.steps + step.number
        if self._meter is None:
            total = float(self._max_epochs * step.steps)
            if done > 1:
                say(f"train {self._name}: resumes from its checkpoint, epoch {step.epoch}, step {step.number}")
            self._meter = Meter(f"train {self._name}", total, "steps at most", start=float(done - 1)).__enter__()
        self._step = done
        self._meter.advance(1.0, f"epoch {step.epoch}{self._note}")
        if step.loss is not None:
            self._curves.add_scalar("loss/step", step.loss, done)

    def epoch(self, epoch: Epoch) -> None:
        """Writes an epoch's scores."""
        if self._silent:
            return
        valence, arousal, mean = epoch.ccc
        self._note = (
            f", loss {epoch.loss:.3f}, development CCC {valence:.3f} valence, {arousal:.3f} arousal, {mean:.3f} mean"
        )
        curves = {"loss/epoch": epoch.loss, "learning_rate": epoch.learning_rate, "skipped_steps": epoch.skipped}
        curves |= {"development_ccc/valence": valence, "development_ccc/arousal": arousal, "development_ccc/mean": mean}
        for name, value in curves.items():
            self._curves.add_scalar(name, value, self._step)
