"""Settings of the models: sizes, windows and training.

``system`` is the name of the system, ``needs`` the modalities whose features it is computed from.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from affect.settings.base import ADDED, Count, Fraction, Number, Positive, Settings, Share
from affect.settings.names import SPEECH_EMOTION, SPEECH_EMOTION_REVISION, Centering
from affect.settings.training import Fit, Loss


@dataclass(frozen=True, kw_only=True, slots=True)
class Speaking(Settings):
    """Mouth filter: a segment's audio is kept if it is not silent and the visible mouth speaks."""

    relative_to: Literal["track", "video"] = "track"
    """Reference for an open mouth: the mean lip area of the track, or of everyone in the video (for videos in which
    one person listens while another talks)."""
    history_rows: Count = 30
    """Mesh rows averaged before the comparison with the reference."""
    bridge_s: float = 0.15
    """Closed runs up to this length, in seconds, between open frames count as open."""
    min_open_run_s: float = 0.20
    """Open runs up to this length, in seconds, count as closed."""
    min_open_s: float = 1.0
    """Minimum open time of a kept segment in seconds."""
    min_coverage: Share = 0.8
    """Minimum share of a kept segment's frames that have a mesh."""
    min_level_dbfs: float = -70.0
    """Segments with an RMS level below this, in dBFS, are silent."""

    def check(self) -> None:
        """Checks constraints between fields."""
        self.require(
            self.min_level_dbfs <= 0, f"min_level_dbfs is {self.min_level_dbfs}, it cannot exceed 0 (full scale)"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceTransformer(Settings):
    """Temporal Transformer over face embeddings."""

    system: ClassVar[str] = "face"
    needs: ClassVar[tuple[str, ...]] = ("face",)

    hidden: Count = 256
    """H, model width."""
    layers: Count = 5
    """Number of Transformer layers."""
    heads: Count = 16
    """Number of attention heads."""
    dropout: Fraction = 0.1
    """Dropout probability, also of attention weights."""
    window_frames: Count = 400
    """T, window length in frames."""
    window_hop_frames: Count = 150
    """Hop between window starts in frames."""
    center: Centering = field(default="none", metadata=ADDED)
    """Embeddings as they are (the paper), relative to the person's median over the track, or both side by side."""
    fit: Fit = field(default_factory=lambda: Fit(plateau_factor=0.1))
    """Training settings."""

    def check(self) -> None:
        """Checks constraints between fields."""
        self.require(self.hidden % self.heads == 0, f"hidden {self.hidden} is no multiple of heads {self.heads}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mamba(Settings):
    """Mamba regressor over the vision-language states of segments."""

    system: ClassVar[str] = "behavior"
    needs: ClassVar[tuple[str, ...]] = ("behavior",)

    states: Literal["multimodal", "vision", "dense"] = "multimodal"
    """Input states: one per segment (``multimodal``, ``vision``), or ``dense``, one per half second."""
    hidden: Count = 256
    """H, model width."""
    layers: Count = 12
    """Number of Mamba blocks."""
    state: Count = 8
    """N, width of the recurrent state."""
    kernel: Count = 5
    """Kernel width of the causal depthwise convolution."""
    dropout: Fraction = 0.2
    """Dropout probability of the projection and the blocks."""
    head_hidden: Count = 512
    """Hidden width of the regression head."""
    head_dropout: Fraction = 0.2
    """Dropout probability of the regression head."""
    window_segments: Count = 16
    """Window length in segments."""
    window_hop_segments: Count = 8
    """Hop between window starts in segments."""
    fit: Fit = field(
        default_factory=lambda: Fit(
            learning_rate=3e-4, weight_decay=1e-3, stop_patience=12, loss=Loss(ccc_over="batch")
        )
    )
    """Training settings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Augment(Settings):
    """Waveform augmentation, in training only, in this order. Each value is a probability per segment."""

    gain: Share = 0.3
    """Random gain, U(-6, 6) dB."""
    noise: Share = 0.6
    """White noise at an SNR of U(8, 25) dB."""
    band_limit: Share = 0.3
    """Low-pass or band-pass filter, equally likely."""
    reverb: Share = 0.2
    """Reverberation: convolution with decaying noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wavlm(Settings):
    """WavLM with attentive statistics pooling over the one-second blocks of a segment."""

    system: ClassVar[str] = "audio"
    needs: ClassVar[tuple[str, ...]] = ("face", "audio")
    files: ClassVar[tuple[str, ...]] = ("weights",)

    weights: str = SPEECH_EMOTION
    """Backbone, a Hugging Face id or folder: WavLM, or a speech-emotion model that wraps it. The paper's is WavLM-Large
    trained on MSP-Podcast."""
    revision: str = SPEECH_EMOTION_REVISION
    """Commit, tag or branch of the Hugging Face id; required for another id. Only a commit is reproducible."""
    trained_layers: Number = 4
    """Number of top encoder layers that are trained; the layers below are frozen."""
    cached: bool = False
    """Whether the frozen layers' outputs are computed once and stored (float16) instead of at every step. This
    disables waveform augmentation, and dropout and SpecAugment of the frozen layers."""
    blocks: Count = 4
    """Blocks per segment, one second each."""
    pooling_hidden: Count = 128
    """Hidden width of the pooling attention."""
    hidden: Count = 256
    """Dimensions of the head's embedding."""
    dropout: Fraction = 0.2
    """Dropout probability of pooling and head."""
    backbone_learning_rate: Positive = 5e-6
    """Learning rate of the backbone; ``fit.learning_rate`` applies to pooling and head."""
    min_blocks: int = 2
    """Minimum annotated blocks of a training segment."""
    augment: Augment = field(default_factory=Augment)
    """Waveform augmentation."""
    speaking: Speaking = field(default_factory=Speaking)
    """Mouth filter: selects the segments for training and the audio that fusion uses."""
    fit: Fit = field(
        default_factory=lambda: Fit(
            learning_rate=2e-4,
            max_epochs=50,
            stop_patience=6,
            plateau_factor=0.5,
            plateau_patience=2,
            plateau_threshold=5e-4,
            clip_norm=1.0,
            ema_decay=0.998,
            loss=Loss(valence_weight=0.7, arousal_weight=0.3, ccc_over="batch", error_weight=0.1, min_points=4),
        )
    )
    """Training settings."""

    def check(self) -> None:
        """Checks constraints between fields."""
        self.require(
            0 < self.min_blocks <= self.blocks, f"min_blocks is {self.min_blocks}, it has to be in [1, {self.blocks}]"
        )

    @property
    def unsearched(self) -> tuple[str, ...]:
        """Settings that a search cannot change because the stored states of frozen layers depend on them."""
        return ("trained_layers", "fit.precision") if self.cached else ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Dcmmoe(Settings):
    """DCMMOE: directed cross-modal mixture of experts."""

    system: ClassVar[str] = "dcmmoe"

    modalities: tuple[str, ...] = ("face", "behavior", "audio")
    """Modalities to fuse, two or more."""
    hidden: Count = 256
    """H, model width."""
    layers: Count = 5
    """Number of Transformer layers per expert."""
    heads: Count = 16
    """Number of attention heads."""
    dropout: Fraction = 0.1
    """Dropout probability."""
    modality_dropout: Fraction = 0.0
    """Probability of dropping a modality from a training window; at least one remains. The paper's value is 0."""
    window_frames: Count = 400
    """T, window length in frames."""
    window_hop_frames: Count = 150
    """Hop between window starts in frames."""
    center: Centering = field(default="none", metadata=ADDED)
    """Embeddings as they are (the paper), relative to the person's median over the track, or both side by side."""
    fit: Fit = field(default_factory=lambda: Fit(plateau_factor=0.1))
    """Training settings."""

    def check(self) -> None:
        """Checks constraints between fields."""
        self.require(self.hidden % self.heads == 0, f"hidden {self.hidden} is no multiple of heads {self.heads}")
        self.require(
            len(self.modalities) >= 2 and len(set(self.modalities)) == len(self.modalities),
            f"modalities {self.modalities} have to be two or more different ones",
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """Modalities whose embeddings are fused."""
        return self.modalities


@dataclass(frozen=True, kw_only=True, slots=True)
class Raav(Settings):
    """RAAV: reliability-aware audio-visual fusion."""

    system: ClassVar[str] = "raav"

    hidden: Count = 256
    """H, model width."""
    heads: Count = 4
    """Number of attention heads."""
    layers: Count = 1
    """Number of temporal Transformer layers."""
    feedforward: Count = 1024
    """Feed-forward width of a temporal layer."""
    latents: Count = 4
    """Number of learned latents of the audio bottleneck."""
    dropout: Fraction = 0.1
    """Dropout probability."""
    modality_dropout: Fraction = 0.0
    """Probability of dropping a modality from a training segment; at least one remains. The paper's value is 0."""
    face_prior: Positive = 0.85
    """Reliability-gate prior of the face, before normalisation."""
    behavior_prior: Positive = 0.15
    """Reliability-gate prior of the behaviour, before normalisation."""
    other_priors: dict[str, float] = field(default_factory=dict, metadata=ADDED)
    """Reliability-gate priors of further visual modalities, by name."""
    audio: str = field(default="audio", metadata=ADDED)
    """Modality that provides the audio tokens."""
    positions: bool = False
    """Whether frames and audio tokens get positional encodings; the paper has none."""
    smooth_valence_frames: int = 9
    """Width in frames of the centred moving average of valence, odd."""
    smooth_arousal_frames: int = 11
    """Width in frames of the centred moving average of arousal, odd."""
    center: Centering = field(default="none", metadata=ADDED)
    """Embeddings as they are (the paper), relative to the person's median over the track, or both side by side."""
    fit: Fit = field(
        default_factory=lambda: Fit(
            learning_rate=5e-5,
            max_epochs=50,
            stop_patience=6,
            clip_norm=1.0,
            loss=Loss(valence_weight=0.7, arousal_weight=0.3, ccc_over="batch", error_weight=0.01, min_points=4),
        )
    )
    """Training settings."""

    def check(self) -> None:
        """Checks constraints between fields."""
        self.require(self.hidden % self.heads == 0, f"hidden {self.hidden} is no multiple of heads {self.heads}")
        for name in ("smooth_valence_frames", "smooth_arousal_frames"):
            width = getattr(self, name)
            self.require(width > 0 and width % 2 == 1, f"{name} is {width}, it has to be odd")
        for name, prior in self.other_priors.items():
            self.require(prior > 0, f"other_priors of {name} is {prior}, it has to be > 0")

    @property
    def priors(self) -> dict[str, float]:
        """Prior of each visual modality, in the gate's order."""
        return {"face": self.face_prior, "behavior": self.behavior_prior, **self.other_priors}

    @property
    def reads(self) -> tuple[str, ...]:
        """Modalities whose embeddings are fused: visual ones, then the audio."""
        return (*self.priors, self.audio)


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear(Settings):
    """Linear map of the ratings that pretrained encoders give themselves; fixed without training."""

    system: ClassVar[str] = "linear"

    modalities: tuple[str, ...] = ("face", "audio")
    """Modalities whose encoders' ratings are read; ``behavior`` with ``--behavior.rate``."""
    valence_priors: dict[str, float] = field(default_factory=lambda: {"face": 0.8, "behavior": 0.5, "audio": 0.2})
    """Weight of each modality in valence, before normalisation over the modalities with evidence."""
    arousal_priors: dict[str, float] = field(default_factory=lambda: {"face": 0.5, "behavior": 0.2, "audio": 0.5})
    """Weight of each modality in arousal, before normalisation over the modalities with evidence."""
    smooth_s: tuple[float, ...] = (3.37, 0.0, 0.5, 1.0, 2.0, 5.0, 8.0)
    """Widths of the centred mean in seconds: the first without training, the best by folds with training."""
    ridge: Positive = 0.01
    """Ridge penalty of the fit, relative to the inputs' variance."""
    folds: Count = 5
    """Folds of training videos that select the width and whether the person's median is subtracted."""

    def check(self) -> None:
        """Checks constraints between fields."""
        once = len(self.modalities) > 0 and len(set(self.modalities)) == len(self.modalities)
        self.require(once, f"modalities {self.modalities} have to be one or more different ones")
        self.require(self.folds >= 2, f"folds is {self.folds}, it has to be 2 or more")
        self.require(bool(self.smooth_s) and min(self.smooth_s) >= 0, f"smooth_s is {self.smooth_s}: 0 or more, each")
        for name in ("valence_priors", "arousal_priors"):
            priors: dict[str, float] = getattr(self, name)
            missing = [m for m in self.modalities if not priors.get(m, 0) > 0]
            self.require(not missing, f"{name} has no number above 0 for {', '.join(missing)}")

    @property
    def rates(self) -> tuple[str, ...]:
        """Modalities whose encoders' ratings are read."""
        return self.modalities
