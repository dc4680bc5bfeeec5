"""Settings of training: loss, optimiser, workers."""

from dataclasses import dataclass, field
from typing import Literal

from affect.settings.base import Count, Inner, NonNegative, Number, Positive, Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss(Settings):
    """``(w_v (1 - CCC_v) + w_a (1 - CCC_a)) / (w_v + w_a) + error_weight * error``."""

    valence_weight: Positive = 1.0
    """w_v."""
    arousal_weight: Positive = 1.0
    """w_a."""
    ccc_over: Literal["window", "batch"] = "window"
    """CCC of each window, averaged over windows, or one CCC over the batch."""
    error: Literal["mae", "mse"] = "mse"
    """The pointwise term, a plain mean over points and both dimensions."""
    error_weight: NonNegative = 0.0
    """Lambda, the weight of the pointwise term."""
    min_points: Count = 2
    """With fewer annotated points in a batch only the pointwise term counts (``ccc_over = "batch"``)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit(Settings):
    """How a model is trained: AdamW, what is watched is always the development set's frame-wise mean CCC."""

    learning_rate: Positive = 1e-4
    """AdamW's learning rate."""
    weight_decay: NonNegative = 0.01
    """AdamW's weight decay."""
    batch_size: Count = 8
    """Windows of a batch, over all workers."""
    max_epochs: Count = 100
    """Passes over the training windows at most."""
    stop_patience: Count = 15
    """Epochs without a better development score before training stops."""
    plateau_factor: Inner | None = None
    """ReduceLROnPlateau's factor; no scheduler if not given."""
    plateau_patience: int = 5
    """ReduceLROnPlateau's patience in epochs."""
    plateau_threshold: float = 1e-4
    """ReduceLROnPlateau's relative threshold."""
    clip_norm: Positive | None = None
    """Largest norm of the gradient; not clipped if not given."""
    ema_decay: Inner | None = None
    """Decay of the moving average of the weights, which is then what is validated and saved."""
    seed: int = 0
    """Seed of initialisation, shuffling and dropout."""
    precision: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """What the model's arithmetic runs in: ``auto`` is bfloat16 autocast on a GPU and float32 on a CPU; float16, for
    GPUs before 2020, scales the loss so that small gradients stay; float64 is for checks. The loss is float32 or wider
    in all of them."""
    compile: bool = False
    """Whether torch.compile makes one program of the model; it costs up to minutes before the first step."""
    loss: Loss = field(default_factory=Loss)
    """The loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers(Settings):
    """Where training runs."""

    num_workers: Number = 0
    """Ray Train workers; 0 trains in the job's own process."""
    num_cpus: Positive = 1.0
    """CPUs of one worker."""
    use_gpu: bool = False
    """Whether each worker holds one GPU."""
    checkpoint_steps: Count = 1000
    """Steps after which training saves where it is, in the middle of an epoch too; every epoch ends with that."""
    loader_cpus: Positive = 1.0
    """CPUs of one of the tasks that read pictures or waveforms for the workers."""
