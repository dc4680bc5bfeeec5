"""Settings of feature extraction: time grid, actor pools, one dataclass per kind of feature, person tracking."""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from affect.settings.base import ADDED, Count, Fraction, NonNegative, Number, Positive, Settings, unchanged


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid(Settings):
    """Segment grid of behaviour and audio, and the length of a clip."""

    segment_s: Positive = 4.0
    """Segment length in seconds."""
    hop_s: Positive = 2.0
    """Hop between segment starts in seconds."""
    clip_s: Positive = 60.0
    """Clip length in seconds, a multiple of ``hop_s``. A clip is the unit of extraction work."""

    def check(self) -> None:
        """Checks constraints between fields."""
        self.require(
            self.hop_s <= self.segment_s, f"hop_s {self.hop_s} leaves gaps between segments of {self.segment_s} s"
        )
        hops = self.clip_s / self.hop_s
        self.require(abs(hops - round(hops)) < 1e-9, f"clip_s {self.clip_s} is no multiple of hop_s {self.hop_s}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool(Settings):
    """Ray actor pool: its size and the resources per actor. Never part of an address."""

    num_cpus: Positive = 1.0
    """CPUs per actor; fractions are allowed."""
    num_gpus: NonNegative = 0.0
    """GPUs per actor: a fraction of one, or a whole number."""
    min_actors: Count = 1
    """Actors at the start."""
    max_actors: int = 1
    """Maximum number of actors, if the cluster has the resources."""
    node_label: str = ""
    """KEY=VALUE: use only nodes started with ``ray start --labels KEY=VALUE``; any node if empty."""

    def check(self) -> None:
        """Checks constraints between fields."""
        whole = self.num_gpus <= 1 or self.num_gpus == int(self.num_gpus)
        self.require(whole, f"num_gpus is {self.num_gpus}, above 1 it has to be a whole number")
        self.require(self.max_actors >= self.min_actors, f"max_actors {self.max_actors} < min_actors {self.min_actors}")
        fits = not self.node_label or (self.node_label.count("=") == 1 and all(self.node_label.split("=")))
        self.require(fits, f"node_label is {self.node_label!r}, it has to be KEY=VALUE")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage(Pool):
    """An extraction stage: an actor pool that turns clips into rows of features."""

    files: ClassVar[tuple[str, ...]] = ()
    """Fields that name weight files."""
    by_content: ClassVar[tuple[str, ...]] = ()
    """Fields that are not part of addresses; the content of the named files is hashed instead."""

    limit_s: NonNegative = 0.0
    """Time limit per clip in seconds, after which its actor exits as hung; 0: 400 x clip length, at least 600."""

    def addressed(self) -> dict[str, Any]:
        """Settings that affect results, for addresses: neither pool settings nor those in :attr:`by_content`."""
        skipped = {f.name for f in fields(Stage)} | set(self.by_content)
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skipped and not unchanged(self, f)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Face(Stage):
    """Face extraction: detection, face mesh and frame encoder."""

    files: ClassVar[tuple[str, ...]] = ("weights", "landmarker", "yolo_weights")
    by_content: ClassVar[tuple[str, ...]] = files

    encoder: Literal["grada", "onnx", "blendshapes"] = field(default="grada", metadata=ADDED)
    """Frame encoder: GRADA, the paper's; a network in ONNX format, such as HSEmotion (extra ``onnx``); or the face
    mesh's 52 expression coefficients with head pose and lip area, which needs no weights."""
    weights: str = "grada"
    """Weights of the encoder. grada: folder with ``model.safetensors`` and ``config.json``; onnx: file with its
    description beside it, or a name listed in :mod:`affect.weights`; if empty, no embeddings are computed, which is
    enough for audio."""
    detector: Literal["mediapipe", "yolo"] = "mediapipe"
    """Face detector: the one inside ``landmarker``, or an Ultralytics model (AGPL-3.0, extra ``yolo``)."""
    landmarker: str = "face_landmarker.task"
    """MediaPipe face landmarker, which computes the mesh: a file, or a name listed in :mod:`affect.weights`."""
    yolo_weights: str = ""
    """Ultralytics checkpoint of the ``yolo`` detector. A ``.pt`` file is a pickle: use only one that you trust."""
    yolo_class: str = "face"
    """Name of the face class in ``yolo_weights``."""
    min_confidence: Fraction = 0.35
    """Minimum confidence of a detection, in [0, 1)."""
    box_growth: Fraction = 0.10
    """Each face box is enlarged by this share of its width and height on every side."""
    max_faces: Count = 8
    """Maximum faces per frame; the largest are kept and the clip is marked ``degraded``."""
    min_face_px: Count = 16
    """Minimum longer side of a face, in pixels of the video."""
    crop_px: Count = 240
    """Side of GRADA's square input in pixels; the crop is centred on black."""
    mesh_px: Count = 240
    """Side of the mesh model's square input in pixels."""
    micro_batch: Number = 0
    """Crops per encoder batch; 0: 8 on a CPU, where more is slower, and 128 on a GPU."""

    def check(self) -> None:
        """Checks constraints between fields."""
        Pool.check(self)
        self.require(
            self.detector != "yolo" or bool(self.yolo_weights),
            "detector yolo needs yolo_weights, the path of an Ultralytics checkpoint (a .pt file is a pickle: use "
            "only one that you trust)",
        )

    def batch_size(self, device: str) -> int:
        """Crops per encoder batch on ``cuda`` or ``cpu``."""
        return self.micro_batch or (128 if device == "cuda" else 8)

    def addressed(self) -> dict[str, Any]:
        """As :meth:`Stage.addressed`; the default batch counts as 8 on every device, so that devices share a store."""
        return Stage.addressed(self) | {"micro_batch": self.batch_size("cpu")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Behavior(Stage):
    """Extraction of vision-language hidden states: one prefill per segment and person."""

    files: ClassVar[tuple[str, ...]] = ("weights",)
    by_content: ClassVar[tuple[str, ...]] = ("weights", "revision", "ask")

    weights: str = "Qwen/Qwen3-VL-4B-Instruct"
    """Qwen3-VL checkpoint: Hugging Face id or folder."""
    revision: str = "ebb281ec70b05090aa6165b016eac8ec08e71b17"
    """Commit, tag or branch of the Hugging Face id; only a commit is reproducible."""
    ask: tuple[Literal["left", "right"], ...] = ()
    """Additional person prompts for every video, besides ``neutral`` and the people named by labels."""
    frames_per_second: Positive = 4.0
    """Sampling rate of frames, per second of a segment."""
    max_frames: Count = 16
    """Maximum frames per segment."""
    min_frame_pixels: Count = 131_072
    """Minimum pixels of a frame; smaller frames are enlarged."""
    max_frame_pixels: int = 786_432
    """Maximum pixels of a frame; larger frames are reduced."""
    micro_batch: Count = 4
    """Segments per prefill; halved if a GPU runs out of memory."""
    compile: bool = field(default=False, metadata=ADDED)
    """Whether to use torch.compile, which takes up to minutes at the first clip of an actor."""
    rate: bool = field(default=False, metadata=ADDED)
    """Experimental: the model also rates each person's valence and arousal in [-1, 1], from its probabilities of the
    digits 1 to 9 as the answer to a question for each."""

    def check(self) -> None:
        """Checks constraints between fields."""
        Pool.check(self)
        self.require(
            self.min_frame_pixels <= self.max_frame_pixels,
            f"min_frame_pixels {self.min_frame_pixels} > max_frame_pixels {self.max_frame_pixels}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Description(Stage):
    """Text descriptions of segments by the vision-language model; other settings are those of :class:`Behavior`."""

    max_tokens: Count = 160
    """Maximum tokens of a description."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Audio(Stage):
    """Extraction of one waveform per segment, and its rating by a speech-emotion model."""

    files: ClassVar[tuple[str, ...]] = ("rater",)
    by_content: ClassVar[tuple[str, ...]] = ("rater", "rater_revision")

    sample_rate_hz: int = 16_000
    """Sampling rate of the mono waveform in Hz; WavLM requires 16000."""
    rater: str = ""
    """Speech-emotion model whose own head rates each segment: a Hugging Face id or folder; none if empty."""
    rater_revision: str = ""
    """Commit, tag or branch of the Hugging Face id of the rater."""
    micro_batch: Count = field(default=8, metadata=ADDED)
    """Segments that the rater takes at once."""

    def check(self) -> None:
        """Checks constraints between fields."""
        Pool.check(self)
        self.require(self.sample_rate_hz == 16_000, f"sample_rate_hz is {self.sample_rate_hz}, WavLM needs 16000")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracking(Settings):
    """Person tracking: linking the faces of single frames into persons."""

    max_gap_s: Positive = 1.0
    """Maximum gap inside a tracklet, in seconds; longer gaps start a new tracklet."""
    min_link: Fraction = 0.75
    """Minimum similarity, in [0, 1], that links a face to a nearby tracklet."""
    min_similarity: Fraction = 0.85
    """Minimum similarity, in [0, 1], that merges tracklets into one person."""
    cut: Positive = 0.10
    """Scene cut threshold: mean absolute change of the thumbnail, as a share of full scale."""
    min_score: Fraction = 0.7
    """Minimum confidence of a certain face (one with a mesh is always certain); half of a person's faces must be."""
    min_presence: Fraction = 0.05
    """Minimum share of the frames with any face in which a person is present."""
    min_person_s: NonNegative = 0.5
    """Minimum total time of a person in seconds."""
