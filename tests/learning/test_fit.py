"""The fit loop on a small problem: it learns, stops, keeps the best, and W processes give what one gives."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from affect.concordance import Moments, ccc, hybrid_loss
from affect.layers import Output
from affect.learning import checkpoint
from affect.learning.batches import Batch, Example, Outputs, Task, Window
from affect.learning.fit import CheckpointFile, Step, evaluate, fit, score
from affect.learning.training import HostCopy
from affect.settings.training import Fit, Loss
from tests.processes import spawn

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")


class Sequence(NamedTuple):
    """Inputs whose first two columns are the answer."""

    name: str
    x: np.ndarray
    gold: np.ndarray


class Linear(nn.Module):
    """One linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Output:
        return Output(self.map(x), x)


class LinearTask(Task):
    """Windows of ten points."""

    def __init__(self, settings: Fit) -> None:
        self.settings = settings

    def build(self) -> nn.Module:
        return Linear()

    def windows(self, item: Sequence) -> list[Window]:
        return [(i, min(i + 10, len(item.x))) for i in range(0, len(item.x), 10)]

    def trains_on(self, item: Sequence, window: Window) -> bool:
        return bool(np.isfinite(item.gold[slice(*window)]).any())

    def example(self, item: Sequence, window: Window) -> Example:
        gold = item.gold[slice(*window)]
        return Example({"x": item.x[slice(*window)]}, gold, np.isfinite(gold).all(axis=1))

    def predict(self, item: Sequence, outputs: Outputs) -> np.ndarray:
        cut = [p[: end - start] for (start, end), p in zip(outputs.windows, outputs.predictions, strict=True)]
        return np.concatenate(cut)


def items(count: int, seed: int) -> list[Sequence]:
    """Sequences of different lengths, some points not annotated."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        x = rng.normal(size=(int(rng.integers(15, 40)), 4))
        gold = np.tanh(x[:, :2] + 0.1 * rng.normal(size=(len(x), 2)))
        gold[rng.random(len(x)) < 0.1] = np.nan
        made.append(Sequence(f"item{i}", x, gold))
    return made


FIT = Fit(
    learning_rate=0.05, max_epochs=8, stop_patience=3, batch_size=4, loss=Loss(ccc_over="batch", error_weight=0.1)
)


def test_it_learns_and_keeps_the_best_epoch():
    seen: list[int] = []
    fitted = fit(
        LinearTask(FIT), items(6, 0), items(3, 1), device=CPU, on_epoch=lambda epoch: seen.append(epoch.number)
    )
    assert fitted.best.ccc[2] > 0.9 and fitted.best.ccc[2] == max(epoch.ccc[2] for epoch in fitted.history)
    assert seen == [epoch.number for epoch in fitted.history]
    again = evaluate(LinearTask(FIT), fitted.model, items(3, 1), CPU)
    assert again == pytest.approx(fitted.best.ccc, abs=1e-12)  # the weights returned are the best epoch's


def test_the_same_seed_gives_the_same_weights_and_another_one_others():
    one, two, other = (
        fit(LinearTask(replace(FIT, seed=seed)), items(4, 0), items(2, 1), device=CPU) for seed in (3, 3, 4)
    )
    assert torch.equal(one.model.map.weight, two.model.map.weight)
    assert not torch.equal(one.model.map.weight, other.model.map.weight)


def test_it_stops_when_the_development_score_no_longer_rises():
    settings = replace(FIT, learning_rate=1e-12, max_epochs=50, stop_patience=2)
    assert len(fit(LinearTask(settings), items(3, 0), items(2, 1), device=CPU).history) <= 6


def test_the_moving_average_is_what_is_judged_and_returned():
    settings = replace(FIT, ema_decay=0.9)
    fitted = fit(LinearTask(settings), items(6, 0), items(3, 1), device=CPU)
    assert evaluate(LinearTask(settings), fitted.model, items(3, 1), CPU) == pytest.approx(fitted.best.ccc)


def test_losses_that_are_not_finite_are_skipped_and_three_in_a_row_end_the_run():
    poisoned = items(1, 0)
    poisoned[0].x[:] = np.nan
    with pytest.raises(FloatingPointError, match="3 steps in a row, last on item0"):
        fit(LinearTask(replace(FIT, batch_size=1)), poisoned, items(2, 1), device=CPU)
    mixed = items(6, 2)
    mixed[3].x[:5] = np.nan
    fitted = fit(LinearTask(replace(FIT, batch_size=2, max_epochs=1)), mixed, items(2, 1), device=CPU)
    assert fitted.history[0].skipped == 1 and np.isfinite(fitted.history[0].loss)


def test_development_labels_that_are_constant_are_an_error_since_their_ccc_is_undefined():
    [flat] = items(1, 0)
    flat.gold[:, 1] = 0.3
    with pytest.raises(ValueError, match="arousal is constant in the development tracks"):
        fit(LinearTask(FIT), items(1, 0), [flat], device=CPU)


class KilledError(Exception):
    """What ends a training in the middle."""


def _killed_after(steps: int) -> Callable[[Step], None]:
    left = iter(range(steps))

    def tell(_: Step) -> None:
        if next(left, None) is None:
            raise KilledError

    return tell


class Noisy(LinearTask):
    """Every source of chance that a training has: dropout, numpy's, and the task's own noise."""

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.3), Linear())

    def augment(self, inputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        x = inputs["x"] + 0.1 * torch.randn(inputs["x"].shape, generator=generator)
        return {"x": x + 0.1 * torch.from_numpy(np.random.normal(size=tuple(x.shape))).float()}

    def forward(self, model: nn.Module, batch: Batch) -> Output:
        return model(batch.inputs["x"])


class Convolved(LinearTask):
    """Notes whether convolutions may round to TF32, in training and in evaluation."""

    def __init__(self, settings: Fit) -> None:
        super().__init__(settings)
        self.allowed: set[bool] = set()

    def forward(self, model: nn.Module, batch: Batch) -> Output:
        self.allowed.add(torch.backends.cudnn.allow_tf32)
        return super().forward(model, batch)


@pytest.mark.parametrize(("precision", "allowed"), [("auto", True), ("float32", False)])
def test_only_float32_is_without_tf32_and_only_while_it_computes(precision: Any, allowed: bool):
    task = Convolved(replace(FIT, precision=precision, max_epochs=1))
    fit(task, items(2, 0), items(1, 1), device=CPU)
    assert task.allowed == {allowed} and torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("seed", range(6))
def test_a_training_that_was_killed_anywhere_ends_as_if_it_had_not_been(seed: int, tmp_path: Path):
    """Bit by bit: weights, averaged weights, learning rates and scores, however often it is killed."""
    rng = np.random.default_rng(seed)
    settings = replace(FIT, ema_decay=0.9 if seed % 2 else None, plateau_factor=0.5, plateau_patience=0, clip_norm=1.0)
    training, development = items(6, 0), items(3, 1)
    whole = fit(Noisy(settings), training, development, device=CPU)
    checkpoint_file = CheckpointFile(str(tmp_path / "checkpoint.safetensors"), int(rng.integers(1, 4)))
    kills = 0
    for _ in range(20):
        try:
            steps = _killed_after(int(rng.integers(2, 12)))
            resumed = fit(
                Noisy(settings), training, development, device=CPU, checkpoint_file=checkpoint_file, on_step=steps
            )
            break
        except KilledError:
            kills += 1
    assert kills >= 2
    assert [e._replace(seconds=0.0, ccc=None) for e in resumed.history] == [
        e._replace(seconds=0.0, ccc=None) for e in whole.history
    ]
    assert np.array_equal([e.ccc for e in resumed.history], [e.ccc for e in whole.history])
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value)


def test_a_checkpoint_leaves_out_what_is_frozen(tmp_path: Path):
    class Frozen(LinearTask):
        def build(self) -> nn.Module:
            model = Linear()
            model.map.bias.requires_grad_(False)
            return model

        def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
            return [{"params": [model.map.weight], "lr": 0.05}]

    checkpoint_file = CheckpointFile(str(tmp_path / "checkpoint.safetensors"), 2)
    fitted = fit(Frozen(FIT), items(4, 0), items(2, 1), device=CPU, checkpoint_file=checkpoint_file)
    tensors, note = checkpoint.decode(Path(checkpoint_file.uri).read_bytes())
    assert "model.map.weight" in tensors and not any("bias" in name for name in tensors)
    assert len(note["history"]) == len(fitted.history)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\x10" + b"\x00" * 7 + b'{"a":1}         '])
def test_a_broken_checkpoint_is_named_and_never_unpickled(content: bytes, tmp_path: Path):
    checkpoint_file = CheckpointFile(str(tmp_path / "checkpoint.safetensors"), 2)
    Path(checkpoint_file.uri).write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors cannot be resumed from, delete it to start anew"):
        fit(LinearTask(FIT), items(4, 0), items(2, 1), device=CPU, checkpoint_file=checkpoint_file)


def test_a_finished_training_is_not_trained_again(tmp_path: Path):
    checkpoint_file = CheckpointFile(str(tmp_path / "checkpoint.safetensors"), 100)
    once = fit(LinearTask(FIT), items(4, 0), items(2, 1), device=CPU, checkpoint_file=checkpoint_file)
    again = fit(
        LinearTask(FIT), items(4, 0), items(2, 1), device=CPU, checkpoint_file=checkpoint_file, on_step=_killed_after(0)
    )
    assert torch.equal(once.model.map.weight, again.model.map.weight)


def test_bfloat16_learns_with_a_loss_and_weights_in_float32():
    seen: list[torch.dtype] = []

    class Watched(LinearTask):
        def loss(self, gold: Tensor, prediction: Tensor, annotated: Tensor) -> Tensor | None:
            value = super().loss(gold, prediction, annotated)
            seen.extend([prediction.dtype, value.dtype])
            return value

    fitted = fit(Watched(replace(FIT, precision="bfloat16")), items(6, 0), items(3, 1), device=CPU)
    assert set(seen[::2]) == {torch.bfloat16} and set(seen[1::2]) == {torch.float32}
    assert fitted.model.map.weight.dtype == torch.float32 and fitted.best.ccc[2] > 0.9


class Loud(LinearTask):
    """Its gradients are beyond float16 at first, until the scale has been halved often enough."""

    def loss(self, gold: Tensor, prediction: Tensor, annotated: Tensor) -> Tensor | None:
        value = super().loss(gold, prediction, annotated)
        return None if value is None else 30 * value


def test_float16_scales_the_loss_skips_overflows_and_resumes_bit_by_bit(tmp_path: Path):
    settings = replace(FIT, precision="float16", max_epochs=4, ema_decay=0.9)
    whole = fit(Loud(settings), items(6, 0), items(3, 1), device=CPU)
    assert whole.model.map.weight.dtype == torch.float32
    assert whole.history[0].skipped > 0 and whole.history[-1].skipped == 0  # 65,536 is too much at first
    assert np.isnan(whole.history[0].loss)  # a step that was not taken is not in the mean
    assert whole.history[-1].loss < whole.history[1].loss
    checkpoint_file = CheckpointFile(str(tmp_path / "checkpoint"), 1)

    def stop(step: Step) -> None:
        if (step.epoch, step.number) == (2, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(Loud(settings), items(6, 0), items(3, 1), device=CPU, on_step=stop, checkpoint_file=checkpoint_file)
    again = fit(Loud(settings), items(6, 0), items(3, 1), device=CPU, checkpoint_file=checkpoint_file)
    assert torch.equal(again.model.map.weight, whole.model.map.weight)
    assert [epoch.skipped for epoch in again.history] == [epoch.skipped for epoch in whole.history]


class Broken(torch.autograd.Function):
    """Passes values on and makes their gradient NaN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:
        return torch.full_like(gradient[0], torch.nan)


class NoGradient(LinearTask):
    """Its loss is finite and its gradient is not."""

    def loss(self, gold: Tensor, prediction: Tensor, annotated: Tensor) -> Tensor | None:
        return super().loss(gold, Broken.apply(prediction), annotated)


def test_gradients_that_no_scale_makes_finite_end_a_float16_training():
    settings = replace(FIT, precision="float16", max_epochs=20, stop_patience=20)
    with pytest.raises(FloatingPointError, match="gradients are finite at no scale, last on item"):
        fit(NoGradient(settings), items(6, 0), items(3, 1), device=CPU)


def test_gradients_are_clipped_at_their_own_scale_in_float16():
    built: list[nn.Module] = []
    norms: list[float] = []

    class Kept(LinearTask):
        def build(self) -> nn.Module:
            built.append(super().build())
            return built[-1]

    def look(_: Step) -> None:
        gradients = [p.grad for p in built[0].parameters() if p.grad is not None]
        norms.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))

    settings = replace(FIT, precision="float16", max_epochs=3, clip_norm=1e-3)
    fit(Kept(settings), items(6, 0), items(3, 1), device=CPU, on_step=look)
    taken = [norm for norm in norms if np.isfinite(norm)]
    assert taken and np.allclose(taken, 1e-3, rtol=1e-2)


def test_nothing_to_train_or_to_select_on_is_an_error():
    blank = [Sequence("blank", np.zeros((10, 4)), np.full((10, 2), np.nan))]
    nobody = [Sequence("nobody", np.zeros((0, 4)), np.zeros((0, 2)))]
    for training, development, message in (
        (blank, items(1, 0), "nothing to learn from: 1 items have 1 windows, 0 of them annotated"),
        (items(1, 0), blank, "nothing to select on: none of 1 development items is annotated"),
        (items(1, 0), nobody, "nothing to select on: 1 items have 0 windows"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(LinearTask(FIT), training, development, device=CPU)


def _score(rank: int, golds: list[np.ndarray], predictions: list[np.ndarray]) -> np.ndarray:
    own = [Moments.of(g, p) for g, p in zip(golds[rank::2], predictions[rank::2], strict=True)]
    return score(own)


def _fit(rank: int, settings: Fit) -> tuple[np.ndarray, list[float]]:
    fitted = fit(LinearTask(settings), items(5, 0), items(3, 1), device=CPU)
    return fitted.model.map.weight.detach().numpy(), [float(epoch.ccc[2]) for epoch in fitted.history]


def test_two_workers_score_what_one_scores_every_frame_once():
    rng = np.random.default_rng(0)
    golds = [rng.uniform(-1, 1, (n, 2)) for n in (400, 7, 93, 250, 31)]
    predictions = [0.6 * g + rng.normal(0, 0.2, g.shape) for g in golds]
    expected = ccc(np.concatenate(golds), np.concatenate(predictions))
    one = score([Moments.of(g, p) for g, p in zip(golds, predictions, strict=True)])
    for value in (one, *spawn(_score, 2, golds, predictions)):
        assert value[:2] == pytest.approx(expected, abs=1e-12) and value[2] == pytest.approx(expected.mean(), abs=1e-12)


@pytest.mark.parametrize("over", ["batch", "window"])
def test_two_workers_learn_what_one_learns(over: str):
    """Batches of an odd size, windows of different lengths: the loss is that of the whole batch all the same."""
    settings = replace(FIT, batch_size=5, max_epochs=3, loss=Loss(ccc_over=over, error_weight=0.1))  # type: ignore[arg-type]
    weights, scores = _fit(0, settings)
    for shared_weights, shared_scores in spawn(_fit, 2, settings):
        assert shared_weights == pytest.approx(weights, abs=1e-5)
        assert shared_scores == pytest.approx(scores, abs=1e-5)


@pytest.mark.slow
def test_a_compiled_model_learns_what_it_learns_as_it_is():
    settings = replace(FIT, max_epochs=3, precision="float64")
    tasks = [LinearTask(replace(settings, compile=on)) for on in (False, True)]
    plain, compiled = (fit(task, items(6, 0), items(3, 1), device=CPU).model.map.weight for task in tasks)
    assert compiled.detach().numpy() == pytest.approx(plain.detach().numpy(), abs=1e-9)


def test_a_step_looks_at_its_loss_after_the_backward_pass_has_been_queued(monkeypatch: pytest.MonkeyPatch):
    """A GPU computes gradients while the host reads the loss; nothing reads a number before."""
    order: list[str] = []
    read, backward = HostCopy.read, Tensor.backward

    def noted_read(self: HostCopy) -> list[float]:
        order.append("read")
        return read(self)

    def noted_backward(self: Tensor, *args: object, **settings: object) -> None:
        order.append("backward")
        backward(self, *args, **settings)

    monkeypatch.setattr(HostCopy, "read", noted_read)
    monkeypatch.setattr(Tensor, "backward", noted_backward)
    fit(LinearTask(replace(FIT, max_epochs=1)), items(6, 0), items(3, 1), device=CPU)
    assert len(order) > 2 and order == ["backward", "read"] * (len(order) // 2)


@pytest.mark.parametrize("over", ["batch", "window"])
def test_a_loss_looks_at_no_number_on_its_way(over: Literal["batch", "window"]):
    """On a device without numbers every look is an error: on a GPU it would be a wait."""
    gold, predicted = (torch.empty(3, 10, 2, device="meta", requires_grad=i == 1) for i in range(2))
    annotated = torch.empty(3, 10, dtype=torch.bool, device="meta")
    hybrid_loss(gold, predicted, annotated, Loss(ccc_over=over, error_weight=0.1, min_points=4)).backward()
