"""Settings of the models: sizes, windows, and how each is trained.

``system`` is the name of the system that has the settings, ``needs`` the modalities whose features decide its numbers.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from affect.settings.base import ADDED, Count, Fraction, Number, Positive, Settings, Share
from affect.settings.training import Fit, Loss


@dataclass(frozen=True, kw_only=True, slots=True)
class Speaking(Settings):
    """The rule that keeps a segment's audio: there is sound, and the visible mouth speaks."""

    relative_to: Literal["track", "video"] = "track"
    """Whose mean lip area an open mouth exceeds: the track's own, or that of everyone in the video, which tells who
    speaks where one listens while another talks."""
    history_rows: Count = 30
    """Mesh rows whose mean lip area is compared with it."""
    bridge_s: float = 0.15
    """Closed runs up to this long between open frames are filled."""
    min_open_run_s: float = 0.20
    """Open runs up to this long are deleted."""
    min_open_s: float = 1.0
    """Seconds of open mouth that a kept segment has."""
    min_coverage: Share = 0.8
    """Share of a kept segment's frames that have a mesh."""
    min_level_dbfs: float = -70.0
    """Sound below this level, a root mean square in dB of full scale, is silence: nobody is heard in it."""

    def check(self) -> None:
        """Check what fields ask of each other."""
        self.require(self.min_level_dbfs <= 0, f"min_level_dbfs is {self.min_level_dbfs}, full scale is 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceTransformer(Settings):
    """Temporal regressor over face embeddings."""

    system: ClassVar[str] = "face"
    needs: ClassVar[tuple[str, ...]] = ("face",)

    hidden: Count = 256
    """H, width of the model."""
    layers: Count = 5
    """Transformer layers."""
    heads: Count = 16
    """Attention heads."""
    dropout: Fraction = 0.1
    """Dropout, attention weights included."""
    window_frames: Count = 400
    """T, frames of a window."""
    window_hop_frames: Count = 150
    """Frames from one window's start to the next one's."""
    fit: Fit = field(default_factory=lambda: Fit(plateau_factor=0.1))
    """How it is trained."""

    def check(self) -> None:
        """Check what fields ask of each other."""
        self.require(self.hidden % self.heads == 0, f"hidden {self.hidden} is no multiple of heads {self.heads}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mamba(Settings):
    """Selective state-space regressor over segment states."""

    system: ClassVar[str] = "behavior"
    needs: ClassVar[tuple[str, ...]] = ("behavior",)

    states: Literal["multimodal", "vision", "dense"] = "multimodal"
    """Which stored states it reads: one of a segment, or ``dense``, those of its half seconds."""
    hidden: Count = 256
    """H, width of the model."""
    layers: Count = 12
    """Mamba blocks."""
    state: Count = 8
    """N, width of the recurrent state."""
    kernel: Count = 5
    """Width of the causal depthwise convolution."""
    dropout: Fraction = 0.2
    """Dropout of the projection and the blocks."""
    head_hidden: Count = 512
    """Width of the regression head."""
    head_dropout: Fraction = 0.2
    """Dropout of the regression head."""
    window_segments: Count = 16
    """Segments of a window."""
    window_hop_segments: Count = 8
    """Segments from one window's start to the next one's."""
    fit: Fit = field(
        default_factory=lambda: Fit(
            learning_rate=3e-4, weight_decay=1e-3, stop_patience=12, loss=Loss(ccc_over="batch")
        )
    )
    """How it is trained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Augment(Settings):
    """Waveform augmentation, training only, in this order. Each is the probability per segment."""

    gain: Share = 0.3
    """Gain of U(-6, 6) dB."""
    noise: Share = 0.6
    """White noise at a signal-to-noise ratio of U(8, 25) dB."""
    band_limit: Share = 0.3
    """Low-pass or band-pass, half each."""
    reverb: Share = 0.2
    """Convolution with decaying noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wavlm(Settings):
    """WavLM with attentive statistics over four blocks of a segment."""

    system: ClassVar[str] = "audio"
    needs: ClassVar[tuple[str, ...]] = ("face", "audio")
    files: ClassVar[tuple[str, ...]] = ("weights",)

    weights: str = "3loi/SER-Odyssey-Baseline-WavLM-Multi-Attributes"
    """Hub id or folder of the backbone: WavLM, or a speech-emotion model that wraps it, as the paper's does, which is
    WavLM-Large trained on MSP-Podcast."""
    revision: str = "00d0e12ba9bf957f5aeea36e8663c8c61cb50ac9"
    """Commit, tag or branch of the hub id, which another hub id needs, too; only a commit always means the same
    numbers."""
    trained_layers: Number = 4
    """Top encoder layers that are trained; everything below is frozen."""
    cached: bool = False
    """Whether training reads what the frozen layers say of the plain waveforms, computed once and stored in 16 bits,
    instead of running them at every step: without waveform augmentation, and without their dropout and SpecAugment."""
    blocks: Count = 4
    """Blocks of a segment, one second each."""
    pooling_hidden: Count = 128
    """Width of the attention that pools states."""
    hidden: Count = 256
    """Width of the head's embedding."""
    dropout: Fraction = 0.2
    """Dropout of pooling and head."""
    backbone_learning_rate: Positive = 5e-6
    """Learning rate of the backbone; ``fit.learning_rate`` is that of pooling and head."""
    min_blocks: int = 2
    """Annotated blocks that a training segment needs."""
    augment: Augment = field(default_factory=Augment)
    """Waveform augmentation."""
    speaking: Speaking = field(default_factory=Speaking)
    """Which segments are trained on, and what fusion may listen to."""
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
    """How it is trained."""

    def check(self) -> None:
        """Check what fields ask of each other."""
        self.require(0 < self.min_blocks <= self.blocks, f"min_blocks is {self.min_blocks} of {self.blocks} blocks")

    @property
    def unsearched(self) -> tuple[str, ...]:
        """Settings that no search may change: what stored states of frozen layers depend on."""
        return ("trained_layers", "fit.precision") if self.cached else ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Dcmmoe(Settings):
    """Directed cross-modal mixture of experts."""

    system: ClassVar[str] = "dcmmoe"

    modalities: tuple[str, ...] = ("face", "behavior", "audio")
    """What is fused, two or more."""
    hidden: Count = 256
    """H, shared width."""
    layers: Count = 5
    """Layers of an expert."""
    heads: Count = 16
    """Attention heads."""
    dropout: Fraction = 0.1
    """Dropout."""
    modality_dropout: Fraction = 0.0
    """Probability that a training window loses a modality; it keeps at least one that it has. The paper's is 0."""
    window_frames: Count = 400
    """T, frames of a window."""
    window_hop_frames: Count = 150
    """Frames from one window's start to the next one's."""
    fit: Fit = field(default_factory=lambda: Fit(plateau_factor=0.1))
    """How it is trained."""

    def check(self) -> None:
        """Check what fields ask of each other."""
        self.require(self.hidden % self.heads == 0, f"hidden {self.hidden} is no multiple of heads {self.heads}")
        self.require(
            len(self.modalities) >= 2 and len(set(self.modalities)) == len(self.modalities),
            f"modalities {self.modalities} have to be two or more different ones",
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """Modalities whose embeddings it fuses."""
        return self.modalities


@dataclass(frozen=True, kw_only=True, slots=True)
class Raav(Settings):
    """Reliability-aware audio-visual fusion."""

    system: ClassVar[str] = "raav"

    hidden: Count = 256
    """H, shared width."""
    heads: Count = 4
    """Attention heads."""
    layers: Count = 1
    """Temporal Transformer layers."""
    feedforward: Count = 1024
    """Width of a temporal layer's feed-forward part."""
    latents: Count = 4
    """Learned latents of the audio bottleneck."""
    dropout: Fraction = 0.1
    """Dropout."""
    modality_dropout: Fraction = 0.0
    """Probability that a training segment loses a modality; it keeps at least one that it has. The paper's is 0."""
    face_prior: Positive = 0.85
    """Prior of the face in the reliability gate, before normalisation."""
    behavior_prior: Positive = 0.15
    """Prior of the behaviour in the reliability gate, before normalisation."""
    other_priors: dict[str, float] = field(default_factory=dict, metadata=ADDED)
    """Priors of further visual modalities, by name."""
    audio: str = field(default="audio", metadata=ADDED)
    """Modality of the audio tokens."""
    positions: bool = False
    """Whether frames and audio tokens carry positions; the paper's do not."""
    smooth_valence_frames: int = 9
    """Width of the centred moving average of valence, odd."""
    smooth_arousal_frames: int = 11
    """Width of the centred moving average of arousal, odd."""
    fit: Fit = field(
        default_factory=lambda: Fit(
            learning_rate=5e-5,
            max_epochs=50,
            stop_patience=6,
            clip_norm=1.0,
            loss=Loss(valence_weight=0.7, arousal_weight=0.3, ccc_over="batch", error_weight=0.01, min_points=4),
        )
    )
    """How it is trained."""

    def check(self) -> None:
        """Check what fields ask of each other."""
        self.require(self.hidden % self.heads == 0, f"hidden {self.hidden} is no multiple of heads {self.heads}")
        for name in ("smooth_valence_frames", "smooth_arousal_frames"):
            width = getattr(self, name)
            self.require(width > 0 and width % 2 == 1, f"{name} is {width}, it has to be odd")
        for name, prior in self.other_priors.items():
            self.require(prior > 0, f"other_priors of {name} is {prior}, it has to be > 0")

    @property
    def priors(self) -> dict[str, float]:
        """Prior of each visual modality, in the order of the gate."""
        return {"face": self.face_prior, "behavior": self.behavior_prior, **self.other_priors}

    @property
    def reads(self) -> tuple[str, ...]:
        """Modalities whose embeddings it fuses: visual ones, then the audio."""
        return (*self.priors, self.audio)
