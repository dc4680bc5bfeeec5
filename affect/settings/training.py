"""Settings of training: loss, optimiser, workers."""

from dataclasses import dataclass, field
from typing import Literal

from affect.settings.base import Count, Inner, NonNegative, Number, Positive, Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss(Settings):
    """``(w_v (1 - CCC_v) + w_a (1 - CCC_a)) / (w_v + w_a) + error_weight * error``."""

    valence_weight: Positive = 1.0
    """Weight of valence (w_v)."""
    arousal_weight: Positive = 1.0
    """Weight of arousal (w_a)."""
    ccc_over: Literal["window", "batch"] = "window"
    """Scope of CCC: each window (then averaged), or all points of the batch."""
    error: Literal["mae", "mse"] = "mse"
    """Pointwise error term, averaged over points and both dimensions."""
    error_weight: NonNegative = 0.0
    """Weight of the pointwise error (lambda)."""
    min_points: Count = 2
    """Minimum annotated points of a batch for the CCC term, if ``ccc_over`` is ``batch``; with fewer, error only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit(Settings):
    """Training with AdamW; scheduling, stopping and selection use frame-wise mean CCC on the development set."""

    learning_rate: Positive = 1e-4
    """Learning rate of AdamW."""
    weight_decay: NonNegative = 0.01
    """Weight decay of AdamW."""
    batch_size: Count = 8
    """Windows per batch, summed over workers."""
    max_epochs: Count = 100
    """Maximum number of epochs."""
    stop_patience: Count = 15
    """Early stopping: epochs without a better development score."""
    plateau_factor: Inner | None = None
    """Factor of ReduceLROnPlateau; no scheduler if None."""
    plateau_patience: int = 5
    """Patience of ReduceLROnPlateau in epochs."""
    plateau_threshold: float = 1e-4
    """Relative threshold of ReduceLROnPlateau."""
    clip_norm: Positive | None = None
    """Maximum gradient norm; no clipping if None."""
    ema_decay: Inner | None = None
    """Decay of the exponential moving average of the weights, which is then validated and saved; none if None."""
    seed: int = 0
    """Random seed of initialisation, shuffling, dropout and augmentation."""
    precision: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """Precision of the model: ``auto`` is bfloat16 autocast on a GPU and float32 on a CPU; float16 (with loss scaling)
    is for GPUs without bfloat16; float32 is without TF32; float64 is for checks. The last layer and the loss are
    always float32 or wider."""
    compile: bool = False
    """Whether to use torch.compile, which takes up to minutes before the first step."""
    loss: Loss = field(default_factory=Loss)
    """Loss function."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers(Settings):
    """Training workers and checkpoints."""

    num_workers: Number = 0
    """Number of Ray Train workers; 0 trains in the job's process."""
    num_cpus: Positive = 1.0
    """CPUs per worker."""
    use_gpu: bool = False
    """Whether each worker uses one GPU."""
    checkpoint_steps: Count = 1000
    """Steps between checkpoints within an epoch; a checkpoint is also saved after every epoch."""
    loader_cpus: Positive = 1.0
    """CPUs per data-loading task, which reads images or waveforms for the workers."""
