"""Every setting of a run: frozen dataclasses with units in the names, ranges checked, a docstring per field.

What changes a number that is stored is part of an address (:func:`address`); how many actors compute it
(:class:`Pool`) is not.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

Modality = Literal["face", "behavior", "audio"]
MODALITIES: tuple[Modality, ...] = ("face", "behavior", "audio")
Kind = Literal["face", "behavior", "audio", "description"]
"""What is extracted: a modality's features, or what is seen in words, which no model reads."""
System = Literal["face", "behavior", "audio", "dcmmoe", "raav"]
SYSTEMS: tuple[System, ...] = ("face", "behavior", "audio", "dcmmoe", "raav")
"""The systems that predict, modalities first: a fusion reads what the modalities' models say."""
FIELDS: dict[System, str] = {
    "face": "face_transformer",
    "behavior": "mamba",
    "audio": "wavlm",
    "dcmmoe": "dcmmoe",
    "raav": "raav",
}
"""Where a system's settings are in a run."""
People = Literal["all", "main", "left", "right"]
"""Whom to predict."""
EXPRESSIONS = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise", "other")
"""Classes of the frame encoder's expression head, in the order of its logits."""


def _check(owner: object, condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"{type(owner).__name__}: {message}")


def _check_positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        _check(owner, value > 0, f"{name} is {value}, it has to be > 0")


def _check_fraction(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        _check(owner, 0 <= value < 1, f"{name} is {value}, it has to be in [0, 1)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """The time grid that behaviour and audio share, and the length of a clip."""

    segment_s: float = 4.0
    """Length of a segment in seconds."""
    hop_s: float = 2.0
    """Seconds from one segment's start to the next one's."""
    clip_s: float = 60.0
    """Length of a clip, the unit of extraction work, in seconds: a multiple of ``hop_s``."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _check_positive(self, "segment_s", "hop_s", "clip_s")
        _check(
            self, self.hop_s <= self.segment_s, f"hop_s {self.hop_s} leaves gaps between segments of {self.segment_s} s"
        )
        hops = self.clip_s / self.hop_s
        _check(self, abs(hops - round(hops)) < 1e-9, f"clip_s {self.clip_s} is no multiple of hop_s {self.hop_s}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """How many Ray actors do one kind of work, and what each of them holds. Never part of an address."""

    num_cpus: float = 1.0
    """CPUs of one actor; fractions are allowed."""
    num_gpus: float = 0.0
    """GPUs of one actor: a part of one, or whole ones."""
    min_actors: int = 1
    """Actors started at once."""
    max_actors: int = 1
    """Actors that the pool may grow to, where the cluster has room."""
    node_label: str = ""
    """KEY=VALUE: actors are placed on nodes that ``ray start --labels KEY=VALUE`` started, on any node if empty."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _check_positive(self, "num_cpus", "min_actors")
        whole = self.num_gpus <= 1 or self.num_gpus == int(self.num_gpus)
        _check(self, self.num_gpus >= 0, f"num_gpus is {self.num_gpus}, it cannot be negative")
        _check(
            self, whole, f"num_gpus is {self.num_gpus}, above 1 it has to be a whole number: cards are not shared so"
        )
        _check(self, self.max_actors >= self.min_actors, f"max_actors {self.max_actors} < min_actors {self.min_actors}")
        fits = not self.node_label or (self.node_label.count("=") == 1 and all(self.node_label.split("=")))
        _check(self, fits, f"node_label is {self.node_label!r}, it has to be KEY=VALUE")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage(Pool):
    """A stage of the extraction, which does clips."""

    limit_s: float = 0.0
    """Seconds that a clip may take before its actor ends itself as one that hangs; 0: 400 per second, at least 600."""

    def __post_init__(self) -> None:
        """Check ranges."""
        Pool.__post_init__(self)
        _check(self, self.limit_s >= 0, f"limit_s is {self.limit_s}, it cannot be negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class Face(Stage):
    """Extraction of faces: detector, mouth mesh and GRADA embedding."""

    weights: str = "grada"
    """Folder of a GRADA checkpoint: ``model.safetensors`` and ``config.json``; empty: faces and mouths alone, which is
    all that audio needs."""
    detector: Literal["mediapipe", "yolo"] = "mediapipe"
    """What finds faces: the detector inside ``landmarker``, or an Ultralytics model (AGPL-3.0, extra ``yolo``)."""
    landmarker: str = "face_landmarker.task"
    """MediaPipe face landmarker, which measures the mouth: a file, or a name that :mod:`affect.weights` knows."""
    yolo_weights: str = ""
    """Ultralytics checkpoint of the ``yolo`` detector: a ``.pt`` file is a pickle, so name only one that you trust."""
    yolo_class: str = "face"
    """Name of the class that counts as a face in ``yolo_weights``."""
    min_confidence: float = 0.35
    """Detections below this confidence are dropped."""
    box_growth: float = 0.10
    """A box grows by this share of its width and height on each side."""
    max_faces: int = 8
    """Faces kept in one frame, the largest ones; a clip with more is ``degraded``."""
    min_face_px: int = 16
    """Faces whose longer side is shorter than this in the video's pixels are dropped."""
    crop_px: int = 240
    """Side of the black square that a crop is centred on for the encoder."""
    mesh_px: int = 240
    """The same for the mesh."""
    micro_batch: int = 8
    """Crops embedded at once. On a CPU 8 is faster than 32; a GPU wants a hundred or more."""

    def __post_init__(self) -> None:
        """Check ranges."""
        Pool.__post_init__(self)
        _check_positive(self, "max_faces", "min_face_px", "crop_px", "mesh_px", "micro_batch")
        _check_fraction(self, "min_confidence", "box_growth")
        _check(
            self,
            self.detector != "yolo" or bool(self.yolo_weights),
            "detector yolo needs yolo_weights, the path of an Ultralytics checkpoint (a .pt file is a pickle: name "
            "only one that you trust)",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Behavior(Stage):
    """Extraction of vision-language states: one prefill per segment."""

    weights: str = "Qwen/Qwen3-VL-4B-Instruct"
    """Hub id or folder of a Qwen3-VL checkpoint."""
    revision: str = "ebb281ec70b05090aa6165b016eac8ec08e71b17"
    """Commit, tag or branch of the hub id; only a commit always means the same numbers."""
    ask: tuple[Literal["left", "right"], ...] = ()
    """People that are asked about in every video, besides ``neutral`` and whom labels name."""
    frames_per_second: float = 4.0
    """Frames shown to the model per second of a segment."""
    max_frames: int = 16
    """Frames shown at most."""
    min_frame_pixels: int = 131_072
    """Smallest picture shown, in pixels."""
    max_frame_pixels: int = 786_432
    """Largest picture shown, in pixels."""
    micro_batch: int = 4
    """Segments in one prefill; a GPU without the memory for them takes half as many."""

    def __post_init__(self) -> None:
        """Check ranges."""
        Pool.__post_init__(self)
        _check_positive(self, "frames_per_second", "max_frames", "min_frame_pixels", "micro_batch")
        _check(
            self,
            self.min_frame_pixels <= self.max_frame_pixels,
            f"min_frame_pixels {self.min_frame_pixels} > max_frame_pixels {self.max_frame_pixels}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Description(Stage):
    """What the vision-language model writes about each segment; the rest is as in :class:`Behavior`."""

    max_tokens: int = 160
    """Tokens of a text at most."""

    def __post_init__(self) -> None:
        """Check ranges."""
        Pool.__post_init__(self)
        _check_positive(self, "max_tokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class Audio(Stage):
    """Extraction of waveforms, one per segment."""

    sample_rate_hz: int = 16_000
    """Samples per second of the mono waveform."""

    def __post_init__(self) -> None:
        """Check ranges."""
        Pool.__post_init__(self)
        _check(self, self.sample_rate_hz == 16_000, f"sample_rate_hz is {self.sample_rate_hz}, WavLM hears 16000")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracking:
    """Who is who: how faces of single frames become persons of a video."""

    max_gap_s: float = 1.0
    """A person unseen for longer starts a new tracklet, which appearance may join again; shorter gaps are bridged."""
    min_link: float = 0.75
    """A face goes on with a tracklet near it if it looks at least this much alike, in [0, 1]."""
    min_similarity: float = 0.85
    """Tracklets that look at least this much alike, in [0, 1], are one person."""
    cut: float = 0.10
    """Mean absolute change of the picture's thumbnail, as a share of full scale, that makes a scene cut."""
    min_score: float = 0.7
    """A face counts as certain with a mesh or with at least this confidence; a person is certain half of the time."""
    min_presence: float = 0.05
    """A person is in at least this share of the frames that show any face."""
    min_person_s: float = 0.5
    """A person is seen for at least this long in all."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _check_positive(self, "max_gap_s", "cut")
        _check_fraction(self, "min_link", "min_similarity", "min_score", "min_presence")
        _check(self, self.min_person_s >= 0, f"min_person_s is {self.min_person_s}, it cannot be negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class Speaking:
    """The rule that keeps a segment's audio: there is sound, and the visible mouth speaks."""

    relative_to: Literal["track", "video"] = "track"
    """Whose mean lip area an open mouth exceeds: the track's own, or that of everyone in the video, which tells who
    speaks where one listens while another talks."""
    history_rows: int = 30
    """Mesh rows whose mean lip area is compared with it."""
    bridge_s: float = 0.15
    """Closed runs up to this long between open frames are filled."""
    min_open_run_s: float = 0.20
    """Open runs up to this long are deleted."""
    min_open_s: float = 1.0
    """Seconds of open mouth that a kept segment has."""
    min_coverage: float = 0.8
    """Share of a kept segment's frames that have a mesh."""
    min_level_dbfs: float = -70.0
    """Sound below this level, a root mean square in dB of full scale, is silence: nobody is heard in it."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _check_positive(self, "history_rows")
        _check(self, self.min_level_dbfs <= 0, f"min_level_dbfs is {self.min_level_dbfs}, full scale is 0")
        _check(self, 0 <= self.min_coverage <= 1, f"min_coverage is {self.min_coverage}, it has to be in [0, 1]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """``(w_v (1 - CCC_v) + w_a (1 - CCC_a)) / (w_v + w_a) + error_weight * error``."""

    valence_weight: float = 1.0
    """w_v."""
    arousal_weight: float = 1.0
    """w_a."""
    ccc_over: Literal["window", "batch"] = "window"
    """CCC of each window, averaged over windows, or one CCC over the batch."""
    error: Literal["mae", "mse"] = "mse"
    """The pointwise term, a plain mean over points and both dimensions."""
    error_weight: float = 0.0
    """Lambda, the weight of the pointwise term."""
    min_points: int = 2
    """With fewer annotated points in a batch only the pointwise term counts (``ccc_over = "batch"``)."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _check_positive(self, "valence_weight", "arousal_weight", "min_points")
        _check(self, self.error_weight >= 0, f"error_weight is {self.error_weight}, it cannot be negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """How a model is trained: AdamW, what is watched is always the development set's frame-wise mean CCC."""

    learning_rate: float = 1e-4
    """AdamW's learning rate."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    batch_size: int = 8
    """Windows of a batch, over all workers."""
    max_epochs: int = 100
    """Passes over the training windows at most."""
    stop_patience: int = 15
    """Epochs without a better development score before training stops."""
    plateau_factor: float | None = None
    """ReduceLROnPlateau's factor; no scheduler if not given."""
    plateau_patience: int = 5
    """ReduceLROnPlateau's patience in epochs."""
    plateau_threshold: float = 1e-4
    """ReduceLROnPlateau's relative threshold."""
    clip_norm: float | None = None
    """Largest norm of the gradient; not clipped if not given."""
    ema_decay: float | None = None
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

    def __post_init__(self) -> None:
        """Check ranges."""
        _check_positive(self, "learning_rate", "batch_size", "max_epochs", "stop_patience")
        _check(self, self.weight_decay >= 0, f"weight_decay is {self.weight_decay}, it cannot be negative")
        for name in ("plateau_factor", "ema_decay"):
            value = getattr(self, name)
            _check(self, value is None or 0 < value < 1, f"{name} is {value}, it has to be in (0, 1)")
        _check(self, self.clip_norm is None or self.clip_norm > 0, f"clip_norm is {self.clip_norm}, it has to be > 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceTransformer:
    """Temporal regressor over face embeddings."""

    hidden: int = 256
    """H, width of the model."""
    layers: int = 5
    """Transformer layers."""
    heads: int = 16
    """Attention heads."""
    dropout: float = 0.1
    """Dropout, attention weights included."""
    window_frames: int = 400
    """T, frames of a window."""
    window_hop_frames: int = 150
    """Frames from one window's start to the next one's."""
    fit: Fit = field(default_factory=lambda: Fit(plateau_factor=0.1))
    """How it is trained."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _check_positive(self, "hidden", "layers", "heads", "window_frames", "window_hop_frames")
        _check_fraction(self, "dropout")
        _check(self, self.hidden % self.heads == 0, f"hidden {self.hidden} is no multiple of heads {self.heads}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mamba:
    """Selective state-space regressor over segment states."""

    states: Literal["multimodal", "vision", "dense"] = "multimodal"
    """Which stored states it reads: one of a segment, or ``dense``, those of its half seconds."""
    hidden: int = 256
    """H, width of the model."""
    layers: int = 12
    """Mamba blocks."""
    state: int = 8
    """N, width of the recurrent state."""
    kernel: int = 5
    """Width of the causal depthwise convolution."""
    dropout: float = 0.2
    """Dropout of the projection and the blocks."""
    head_hidden: int = 512
    """Width of the regression head."""
    head_dropout: float = 0.2
    """Dropout of the regression head."""
    window_segments: int = 16
    """Segments of a window."""
    window_hop_segments: int = 8
    """Segments from one window's start to the next one's."""
    fit: Fit = field(
        default_factory=lambda: Fit(
            learning_rate=3e-4, weight_decay=1e-3, stop_patience=12, loss=Loss(ccc_over="batch")
        )
    )
    """How it is trained."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _check_positive(
            self, "hidden", "layers", "state", "kernel", "head_hidden", "window_segments", "window_hop_segments"
        )
        _check_fraction(self, "dropout", "head_dropout")


@dataclass(frozen=True, kw_only=True, slots=True)
class Augment:
    """Waveform augmentation, training only, in this order. Each is the probability per segment."""

    gain: float = 0.3
    """Gain of U(-6, 6) dB."""
    noise: float = 0.6
    """White noise at a signal-to-noise ratio of U(8, 25) dB."""
    band_limit: float = 0.3
    """Low-pass or band-pass, half each."""
    reverb: float = 0.2
    """Convolution with decaying noise."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("gain", "noise", "band_limit", "reverb"):
            value = getattr(self, name)
            _check(self, 0 <= value <= 1, f"{name} is {value}, a probability has to be in [0, 1]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wavlm:
    """WavLM with attentive statistics over four blocks of a segment."""

    weights: str = "3loi/SER-Odyssey-Baseline-WavLM-Multi-Attributes"
    """Hub id or folder of the backbone: WavLM, or a speech-emotion model that wraps it, as the paper's does, which is
    WavLM-Large trained on MSP-Podcast."""
    revision: str = "00d0e12ba9bf957f5aeea36e8663c8c61cb50ac9"
    """Commit, tag or branch of the hub id, which another hub id needs, too; only a commit always means the same
    numbers."""
    trained_layers: int = 4
    """Top encoder layers that are trained; everything below is frozen."""
    cached: bool = False
    """Whether training reads what the frozen layers say of the plain waveforms, computed once and stored in 16 bits,
    instead of running them at every step: without waveform augmentation, and without their dropout and SpecAugment."""
    blocks: int = 4
    """Blocks of a segment, one second each."""
    pooling_hidden: int = 128
    """Width of the attention that pools states."""
    hidden: int = 256
    """Width of the head's embedding."""
    dropout: float = 0.2
    """Dropout of pooling and head."""
    backbone_learning_rate: float = 5e-6
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

    def __post_init__(self) -> None:
        """Check ranges."""
        _check_positive(self, "blocks", "pooling_hidden", "hidden", "backbone_learning_rate")
        _check_fraction(self, "dropout")
        _check(self, self.trained_layers >= 0, f"trained_layers is {self.trained_layers}, it cannot be negative")
        _check(self, 0 < self.min_blocks <= self.blocks, f"min_blocks is {self.min_blocks} of {self.blocks} blocks")


@dataclass(frozen=True, kw_only=True, slots=True)
class Dcmmoe:
    """Directed cross-modal mixture of experts."""

    modalities: tuple[Modality, ...] = MODALITIES
    """What is fused, two or more."""
    hidden: int = 256
    """H, shared width."""
    layers: int = 5
    """Layers of an expert."""
    heads: int = 16
    """Attention heads."""
    dropout: float = 0.1
    """Dropout."""
    modality_dropout: float = 0.0
    """Probability that a training window loses a modality; it keeps at least one that it has. The paper's is 0."""
    window_frames: int = 400
    """T, frames of a window."""
    window_hop_frames: int = 150
    """Frames from one window's start to the next one's."""
    fit: Fit = field(default_factory=lambda: Fit(plateau_factor=0.1))
    """How it is trained."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _check_positive(self, "hidden", "layers", "heads", "window_frames", "window_hop_frames")
        _check_fraction(self, "dropout", "modality_dropout")
        _check(self, self.hidden % self.heads == 0, f"hidden {self.hidden} is no multiple of heads {self.heads}")
        _check(
            self,
            len(self.modalities) >= 2 and len(set(self.modalities)) == len(self.modalities),
            f"modalities {self.modalities} have to be two or more different ones",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Raav:
    """Reliability-aware audio-visual fusion."""

    hidden: int = 256
    """H, shared width."""
    heads: int = 4
    """Attention heads."""
    layers: int = 1
    """Temporal Transformer layers."""
    feedforward: int = 1024
    """Width of a temporal layer's feed-forward part."""
    latents: int = 4
    """Learned latents of the audio bottleneck."""
    dropout: float = 0.1
    """Dropout."""
    modality_dropout: float = 0.0
    """Probability that a training segment loses a modality; it keeps at least one that it has. The paper's is 0."""
    face_prior: float = 0.85
    """Prior of the face in the reliability gate, before normalisation."""
    behavior_prior: float = 0.15
    """Prior of the behaviour in the reliability gate, before normalisation."""
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

    def __post_init__(self) -> None:
        """Check ranges."""
        _check_positive(self, "hidden", "heads", "layers", "feedforward", "latents", "face_prior", "behavior_prior")
        _check_fraction(self, "dropout", "modality_dropout")
        _check(self, self.hidden % self.heads == 0, f"hidden {self.hidden} is no multiple of heads {self.heads}")
        for name in ("smooth_valence_frames", "smooth_arousal_frames"):
            width = getattr(self, name)
            _check(self, width > 0 and width % 2 == 1, f"{name} is {width}, it has to be odd")


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """Where training runs."""

    num_workers: int = 0
    """Ray Train workers; 0 trains in the job's own process."""
    num_cpus: float = 1.0
    """CPUs of one worker."""
    use_gpu: bool = False
    """Whether each worker holds one GPU."""
    checkpoint_steps: int = 1000
    """Steps after which training saves where it is, in the middle of an epoch too; every epoch ends with that."""
    loader_cpus: float = 1.0
    """CPUs of one of the tasks that read pictures or waveforms for the workers."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _check(self, self.num_workers >= 0, f"num_workers is {self.num_workers}, it cannot be negative")
        _check_positive(self, "num_cpus", "checkpoint_steps", "loader_cpus")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A complete run: what is extracted, what is trained on it, and where."""

    name: str
    """The recipe's name."""
    systems: tuple[System, ...] = SYSTEMS
    """What is trained and predicted; the last one's answer is the run's."""
    grid: Grid = field(default_factory=Grid)
    """Time grid."""
    face: Face = field(default_factory=Face)
    """Face extraction."""
    behavior: Behavior = field(default_factory=Behavior)
    """Behaviour extraction."""
    description: Description = field(default_factory=Description)
    """Descriptions in words, where they are asked for."""
    audio: Audio = field(default_factory=Audio)
    """Audio extraction."""
    tracking: Tracking = field(default_factory=Tracking)
    """Who is who."""
    face_transformer: FaceTransformer = field(default_factory=FaceTransformer)
    """Temporal model of the face."""
    mamba: Mamba = field(default_factory=Mamba)
    """Temporal model of the behaviour."""
    wavlm: Wavlm = field(default_factory=Wavlm)
    """Model of the audio."""
    dcmmoe: Dcmmoe = field(default_factory=Dcmmoe)
    """First fusion."""
    raav: Raav = field(default_factory=Raav)
    """Second fusion."""
    workers: Workers = field(default_factory=Workers)
    """Where training runs."""
    inference: Pool = field(default_factory=lambda: Pool(max_actors=1000))
    """Actors that run trained models: prediction, evaluation, and the audio model's frozen layers. On a CPU each
    computes on one thread; there are no more of them than two GiB of memory each allow."""

    def __post_init__(self) -> None:
        """Check what settings ask of each other."""
        _check(
            self,
            self.grid.segment_s == self.wavlm.blocks,
            f"grid.segment_s {self.grid.segment_s} and wavlm.blocks {self.wavlm.blocks}: a block is one second",
        )
        _check(self, bool(self.systems), "systems is empty")
        for system in self.systems:
            absent = [m for m in self.reads(system) if m not in self.systems]
            _check(self, not absent, f"{system} reads the embeddings of {', '.join(absent)}: add them to systems")
        _check(self, bool(self.face.weights) or "face" not in self.systems, "system face needs face.weights")

    def reads(self, system: System) -> tuple[Modality, ...]:
        """The modalities whose embeddings a system reads: none for a modality's own."""
        return {"dcmmoe": self.dcmmoe.modalities, "raav": MODALITIES}.get(system, ())

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that are trained."""
        return tuple(m for m in MODALITIES if m in self.systems)

    @property
    def extracted(self) -> tuple[Modality, ...]:
        """The modalities that are extracted."""
        needed = {m for system in self.systems for m in self.extracted_for(system)}
        return tuple(m for m in MODALITIES if m in needed)

    def extracted_for(self, system: System) -> tuple[Modality, ...]:
        """The modalities whose features decide a system's numbers: audio is heard when the face's mouth speaks."""
        heard = self.reads(system) or (system,)
        return tuple(m for m in MODALITIES if m in heard or (m == "face" and "audio" in heard))

    def settings_of(self, system: System) -> Any:  # noqa: ANN401 -- one of five dataclasses
        """The settings of a system."""
        return getattr(self, FIELDS[system])

    @property
    def segment_samples(self) -> int:
        """Samples of a full segment's waveform."""
        return round(self.grid.segment_s * self.audio.sample_rate_hz)


@dataclass(frozen=True, kw_only=True, slots=True)
class GradaShape:
    """Size of the frame encoder and of its input; the defaults are EfficientNet-B1's and the paper's."""

    width: float = 1.0
    """Factor on EfficientNet-B0's channels."""
    depth: float = 1.1
    """Factor on EfficientNet-B0's layers."""
    embedding: int = 256
    """Width of the embedding."""
    dropout: float = 0.1
    """Dropout before the embedding."""
    crop_px: int = 240
    """Side of the black square that a face is centred on."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _check_positive(self, "width", "depth", "embedding", "crop_px")
        _check_fraction(self, "dropout")


@dataclass(frozen=True, kw_only=True, slots=True)
class CropAugment:
    """Augmentation of face crops, training only."""

    mirror: float = 0.5
    """Probability of a mirror image."""
    turn_deg: float = 10.0
    """Largest turn to either side in degrees."""
    scale: float = 0.10
    """Largest change of size, as a share."""
    shift: float = 0.05
    """Largest shift, as a share of half a side."""
    brightness: float = 0.2
    """Largest change of brightness, as a share."""
    contrast: float = 0.2
    """Largest change of contrast, as a share."""
    saturation: float = 0.2
    """Largest change of saturation, as a share."""
    grey: float = 0.05
    """Probability of a crop without colour."""
    erase: float = 0.25
    """Probability of a blacked-out rectangle."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _check_fraction(self, "scale", "shift", "brightness", "contrast", "saturation")
        for name in ("mirror", "grey", "erase"):
            value = getattr(self, name)
            _check(self, 0 <= value <= 1, f"{name} is {value}, a probability has to be in [0, 1]")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderRun:
    """Training of the frame encoder on labelled pictures: expressions, valence and arousal, or both."""

    name: str
    """The recipe's name."""
    shape: GradaShape = field(default_factory=GradaShape)
    """Its size."""
    trunk: str = ""
    """EfficientNet that the trunk starts from: safetensors with torchvision's names; random if not given."""
    box_growth: float = 0.10
    """A manifest's box grows by this share of its width and height on each side."""
    trunk_learning_rate: float = 1e-4
    """Learning rate of the trunk, which no scheduler lowers; ``fit.learning_rate`` is that of embedding and heads."""
    affect_weight: float = 1.0
    """Weight of the valence and arousal loss."""
    expression_weight: float = 1.0
    """Weight of the expressions' cross-entropy."""
    dataset_weights: dict[str, float] = field(default_factory=dict)
    """How often a dataset's pictures are seen in an epoch: 0.5 half of them, 2 each twice; 1 if not given."""
    augment: CropAugment = field(default_factory=CropAugment)
    """Augmentation."""
    fit: Fit = field(
        default_factory=lambda: Fit(
            learning_rate=1e-3,
            batch_size=64,
            max_epochs=30,
            stop_patience=5,
            clip_norm=1.0,
            loss=Loss(ccc_over="batch", error_weight=1.0, min_points=4),
        )
    )
    """How it is trained."""
    workers: Workers = field(default_factory=Workers)
    """Where training runs."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _check_positive(self, "trunk_learning_rate")
        _check_fraction(self, "box_growth")
        for name in ("affect_weight", "expression_weight"):
            value = getattr(self, name)
            _check(self, value >= 0, f"{name} is {value}, it cannot be negative")
        for name, value in self.dataset_weights.items():
            _check(self, value >= 0, f"dataset_weights of {name} is {value}, it cannot be negative")


SETTINGS_OF: dict[System, type] = {
    "face": FaceTransformer,
    "behavior": Mamba,
    "audio": Wavlm,
    "dcmmoe": Dcmmoe,
    "raav": Raav,
}
"""The dataclass of each system's settings."""


def from_plain(kind: type, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- an instance of the kind
    """Settings from what ``dataclasses.asdict`` and JSON make of them.

    Args:
        kind: the dataclass.
        values: by field; a field that is not given has its default.

    Raises:
        ValueError: a value is out of range or belongs to no field.
    """
    types = get_type_hints(kind)
    if unknown := sorted(values.keys() - types.keys()):
        raise ValueError(f"{kind.__name__} has no setting {', '.join(unknown)}")
    made: dict[str, Any] = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(types[name]):
            value = from_plain(cast(type, types[name]), value)
        made[name] = tuple(value) if isinstance(value, list) else value
    return kind(**made)


def setting(owner: Any, path: str) -> Any:  # noqa: ANN401 -- a dataclass of settings; any value
    """A setting by its dotted path, such as ``dcmmoe.fit.learning_rate``.

    Raises:
        ValueError: there is none.
    """
    value = owner
    for name in path.split("."):
        if not dataclasses.is_dataclass(value) or name not in {f.name for f in dataclasses.fields(value)}:
            raise ValueError(f"{path}: {type(value).__name__} has no setting {name}")
        value = getattr(value, name)
    return value


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:  # noqa: ANN401 -- a dataclass, or what JSON makes of one
    """Settings by dotted path.

    Args:
        settings: a dataclass, or a mapping with the same names.
        prefix: path of the whole, empty for none.
    """
    parts = settings
    if dataclasses.is_dataclass(settings):
        parts = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    if not isinstance(parts, Mapping):
        return {prefix: settings}
    dot = "." if prefix else ""
    return {p: v for name, part in parts.items() for p, v in flat(part, f"{prefix}{dot}{name}").items()}


def with_settings(owner: Any, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- the same kind of dataclass
    """Settings with some changed, all at once: what they ask of each other is seen of the whole.

    Args:
        owner: a run, or a part of one.
        values: by dotted path.

    Raises:
        ValueError: a path is no setting, or a value is out of range or of another kind.
    """
    hints = get_type_hints(type(owner))
    parts: dict[str, dict[str, Any]] = {}
    changes: dict[str, Any] = {}
    for path, value in values.items():
        name, _, rest = path.partition(".")
        setting(owner, path)
        if rest:
            parts.setdefault(name, {})[rest] = value
        else:
            changes[name] = _fitted(hints[name], value, f"{type(owner).__name__}: {name}")
    changes |= {name: with_settings(getattr(owner, name), inner) for name, inner in parts.items()}
    return dataclasses.replace(owner, **changes)


def _fitted(kind: Any, value: Any, name: str) -> Any:  # noqa: ANN401 -- a type, and any value
    """A value as a field of a type has it; JSON and command lines know no tuples and write 1 for 1.0."""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    for option in options:
        origin = get_origin(option)
        if origin is Literal and value in get_args(option):
            return value
        if origin is tuple and isinstance(value, (list, tuple)):
            return tuple(_fitted(get_args(option)[0], part, name) for part in value)
        if option is float and type(value) in (int, float):
            return float(value)
        if option in (int, str, bool, NoneType) and type(value) is option:
            return value
    raise ValueError(f"{name} cannot be {value!r}, it is {getattr(kind, '__name__', kind)}")


def address(*parts: Any) -> str:  # noqa: ANN401 -- dataclasses, strings and plain JSON values
    """Sixteen hex digits that change whenever a setting changes that could change a number.

    Args:
        parts: dataclasses and JSON values. The fields of :class:`Stage` are left out of its subclasses.

    Returns:
        The first 16 digits of the sha256 of the parts as canonical JSON.
    """
    pool = {f.name for f in dataclasses.fields(Stage)}

    def plain(part: Any) -> Any:  # noqa: ANN401
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            skipped = pool if isinstance(part, Stage) else set()
            names = (f.name for f in dataclasses.fields(part) if f.name not in skipped)
            return {"": type(part).__name__, **{name: plain(getattr(part, name)) for name in names}}
        if isinstance(part, (tuple, list)):
            return [plain(p) for p in part]
        return part

    canonical = json.dumps([plain(p) for p in parts], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
