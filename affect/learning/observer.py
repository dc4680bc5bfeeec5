"""Progress of a training: time left, scores, and curves for TensorBoard."""

from types import TracebackType
from typing import Any

from affect.learning.fit import Epoch, Step
from affect.progress import Meter, say
from affect.storage import files


class Observer:
    """Shows how a training goes: progress with the time that is left, and curves for TensorBoard beside the model.

    Args:
        name: what is trained.
        folder: the model's; curves go to ``tensorboard`` below it.
        max_epochs: epochs at most.
        rank: this process' number; the first one shows.
    """

    def __init__(self, name: str, folder: str, max_epochs: int, rank: int) -> None:
        """Show nothing yet."""
        self._name, self._folder, self._max_epochs, self._silent = name, folder, max_epochs, rank != 0
        self._meter: Meter | None = None
        self._curves: Any = None
        self._note = ""
        self._step = 0

    def __enter__(self) -> "Observer":
        """Open the curves."""
        if not self._silent:
            from torch.utils.tensorboard import SummaryWriter  # 1.5 s to import, which jobs that only read need not pay

            self._curves = SummaryWriter(files.join(self._folder, "tensorboard"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left."""
        if self._curves:
            self._curves.close()
        if self._meter:
            self._meter.__exit__(kind, error, trace)

    def step(self, step: Step) -> None:
        """Count a step; training may stop before the last epoch, so the time left is the most that it can be."""
        if self._silent:
            return
        done = (step.epoch - 1) * step.steps + step.number
        if self._meter is None:
            total = float(self._max_epochs * step.steps)
            if done > 1:
                say(f"train {self._name}: goes on from its checkpoint, epoch {step.epoch}, step {step.number}")
            self._meter = Meter(f"train {self._name}", total, "steps at most", start=float(done - 1)).__enter__()
        self._step = done
        self._meter.advance(1.0, f"epoch {step.epoch}{self._note}")
        if step.loss is not None:
            self._curves.add_scalar("loss/step", step.loss, done)

    def epoch(self, epoch: Epoch) -> None:
        """Note an epoch's scores."""
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
