"""Settings of the extraction: time grid, actor pools, and one dataclass per kind of feature."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from affect.settings.base import Count, Fraction, NonNegative, Positive, Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid(Settings):
    """The time grid that behaviour and audio share, and the length of a clip."""

    segment_s: Positive = 4.0
    """Length of a segment in seconds."""
    hop_s: Positive = 2.0
    """Seconds from one segment's start to the next one's."""
    clip_s: Positive = 60.0
    """Length of a clip, the unit of extraction work, in seconds: a multiple of ``hop_s``."""

    def check(self) -> None:
        """Check what fields ask of each other."""
        self.require(
            self.hop_s <= self.segment_s, f"hop_s {self.hop_s} leaves gaps between segments of {self.segment_s} s"
        )
        hops = self.clip_s / self.hop_s
        self.require(abs(hops - round(hops)) < 1e-9, f"clip_s {self.clip_s} is no multiple of hop_s {self.hop_s}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool(Settings):
    """How many Ray actors do one kind of work, and what each of them holds. Never part of an address."""

    num_cpus: Positive = 1.0
    """CPUs of one actor; fractions are allowed."""
    num_gpus: NonNegative = 0.0
    """GPUs of one actor: a part of one, or whole ones."""
    min_actors: Count = 1
    """Actors started at once."""
    max_actors: int = 1
    """Actors that the pool may grow to, where the cluster has room."""
    node_label: str = ""
    """KEY=VALUE: actors are placed on nodes that ``ray start --labels KEY=VALUE`` started, on any node if empty."""

    def check(self) -> None:
        """Check what fields ask of each other."""
        whole = self.num_gpus <= 1 or self.num_gpus == int(self.num_gpus)
        self.require(
            whole, f"num_gpus is {self.num_gpus}, above 1 it has to be a whole number: cards are not shared so"
        )
        self.require(self.max_actors >= self.min_actors, f"max_actors {self.max_actors} < min_actors {self.min_actors}")
        fits = not self.node_label or (self.node_label.count("=") == 1 and all(self.node_label.split("=")))
        self.require(fits, f"node_label is {self.node_label!r}, it has to be KEY=VALUE")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage(Pool):
    """A stage of the extraction: actors that turn clips into rows."""

    files: ClassVar[tuple[str, ...]] = ()
    """Settings that name files of weights."""
    by_content: ClassVar[tuple[str, ...]] = ()
    """Settings that addresses leave out: of files the content counts, whatever they are called."""

    limit_s: NonNegative = 0.0
    """Seconds that a clip may take before its actor ends itself as one that hangs; 0: 400 per second, at least 600."""

    def addressed(self) -> dict[str, Any]:
        """Settings that change numbers: those of no pool, and those of which the value itself counts."""
        skipped = {f.name for f in fields(Stage)} | set(self.by_content)
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skipped}


@dataclass(frozen=True, kw_only=True, slots=True)
class Face(Stage):
    """Extraction of faces: detector, mouth mesh and GRADA embedding."""

    files: ClassVar[tuple[str, ...]] = ("weights", "landmarker", "yolo_weights")
    by_content: ClassVar[tuple[str, ...]] = files

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
    min_confidence: Fraction = 0.35
    """Detections below this confidence are dropped."""
    box_growth: Fraction = 0.10
    """A box grows by this share of its width and height on each side."""
    max_faces: Count = 8
    """Faces kept in one frame, the largest ones; a clip with more is ``degraded``."""
    min_face_px: Count = 16
    """Faces whose longer side is shorter than this in the video's pixels are dropped."""
    crop_px: Count = 240
    """Side of the black square that a crop is centred on for the encoder."""
    mesh_px: Count = 240
    """The same for the mesh."""
    micro_batch: Count = 8
    """Crops embedded at once. On a CPU 8 is faster than 32; a GPU wants a hundred or more."""

    def check(self) -> None:
        """Check what fields ask of each other."""
        Pool.check(self)
        self.require(
            self.detector != "yolo" or bool(self.yolo_weights),
            "detector yolo needs yolo_weights, the path of an Ultralytics checkpoint (a .pt file is a pickle: name "
            "only one that you trust)",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Behavior(Stage):
    """Extraction of vision-language states: one prefill per segment."""

    files: ClassVar[tuple[str, ...]] = ("weights",)
    by_content: ClassVar[tuple[str, ...]] = ("weights", "revision", "ask")

    weights: str = "Qwen/Qwen3-VL-4B-Instruct"
    """Hub id or folder of a Qwen3-VL checkpoint."""
    revision: str = "ebb281ec70b05090aa6165b016eac8ec08e71b17"
    """Commit, tag or branch of the hub id; only a commit always means the same numbers."""
    ask: tuple[Literal["left", "right"], ...] = ()
    """People that are asked about in every video, besides ``neutral`` and whom labels name."""
    frames_per_second: Positive = 4.0
    """Frames shown to the model per second of a segment."""
    max_frames: Count = 16
    """Frames shown at most."""
    min_frame_pixels: Count = 131_072
    """Smallest picture shown, in pixels."""
    max_frame_pixels: int = 786_432
    """Largest picture shown, in pixels."""
    micro_batch: Count = 4
    """Segments in one prefill; a GPU without the memory for them takes half as many."""

    def check(self) -> None:
        """Check what fields ask of each other."""
        Pool.check(self)
        self.require(
            self.min_frame_pixels <= self.max_frame_pixels,
            f"min_frame_pixels {self.min_frame_pixels} > max_frame_pixels {self.max_frame_pixels}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Description(Stage):
    """What the vision-language model writes about each segment; the rest is as in :class:`Behavior`."""

    max_tokens: Count = 160
    """Tokens of a text at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Audio(Stage):
    """Extraction of waveforms, one per segment."""

    sample_rate_hz: int = 16_000
    """Samples per second of the mono waveform."""

    def check(self) -> None:
        """Check what fields ask of each other."""
        Pool.check(self)
        self.require(self.sample_rate_hz == 16_000, f"sample_rate_hz is {self.sample_rate_hz}, WavLM hears 16000")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracking(Settings):
    """Who is who: how faces of single frames become persons of a video."""

    max_gap_s: Positive = 1.0
    """A person unseen for longer starts a new tracklet, which appearance may join again; shorter gaps are bridged."""
    min_link: Fraction = 0.75
    """A face goes on with a tracklet near it if it looks at least this much alike, in [0, 1]."""
    min_similarity: Fraction = 0.85
    """Tracklets that look at least this much alike, in [0, 1], are one person."""
    cut: Positive = 0.10
    """Mean absolute change of the picture's thumbnail, as a share of full scale, that makes a scene cut."""
    min_score: Fraction = 0.7
    """A face counts as certain with a mesh or with at least this confidence; a person is certain half of the time."""
    min_presence: Fraction = 0.05
    """A person is in at least this share of the frames that show any face."""
    min_person_s: NonNegative = 0.5
    """A person is seen for at least this long in all."""
