"""What the system knows of a modality, in one record: the rest of the program goes through lists of such records.

    Kind       what is extracted of clips: rows, actors, address, cost
    System     what predicts: settings, task, title, search space, cost
    Modality   both, and its part of a person's track

The records are ``affect/<name>/modality.py``, their list is :mod:`affect.modalities`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa
from jaxtyping import Int
from numpy import ndarray

from affect.corpus.clip import Clip
from affect.corpus.track import Segments, Track
from affect.corpus.video import Probe
from affect.settings.address import address
from affect.settings.base import Settings
from affect.settings.extraction import Stage
from affect.settings.recipes import Recipe
from affect.settings.run import Run
from affect.settings.spaces import Space
from affect.storage import schema
from affect.storage.extracted import Extracted, Part, Save
from affect.storage.store import Store
from affect.timeline import Timestamps

Extractor = Callable[[Clip, Part | None, Save], Extracted]
"""Turns a clip into rows, from a part of it that is done or from its beginning; saves parts on the way."""


class Work(NamedTuple):
    """Work of an actor per second of video, from sizes of models and inputs alone.

    Args:
        operations: floating-point operations.
        other_s: seconds of anything else.
        words: what it was counted from.
    """

    operations: float
    other_s: float
    words: str


def millions(number: float) -> str:
    """A large number in words, two digits of it."""
    return f"{float(f'{number / 1e6:.2g}'):,g} million"


class Kind(ABC):
    """One kind of features: what is extracted of every clip.

    Attributes:
        name: key of its objects in the store, and of its :class:`affect.settings.extraction.Stage` in a run.
        rows: schema of its table.
        finite: columns that models read; a row in which one of their numbers is not finite is left out.
        by_person: whether its rows depend on the people that are asked about.
        checked_on_nodes: whether :meth:`check_weights` has to run on every node that may start its actors.
        bytes_per_s: assumed size per second of video, before anything was written.
    """

    name: str
    rows: pa.Schema
    finite: tuple[str, ...] = ()
    by_person = False
    checked_on_nodes = False
    bytes_per_s: float

    def stage(self, run: Run) -> Stage:
        """Settings of its extraction."""
        return getattr(run, self.name)

    @abstractmethod
    def extractor(self, run: Run, device: str) -> Extractor:
        """Load what turns clips into rows, on ``cuda`` or ``cpu``."""

    @abstractmethod
    def work(self, run: Run, probe: Probe) -> Work:
        """Work of extracting a second of a video.

        Raises:
            WeightsError: local weights cannot be read.
        """

    def content(self, run: Run) -> list[str]:
        """Identities of the weights and prompts that its numbers come from.

        Raises:
            WeightsError: weights that a setting names cannot be had.
        """
        return []

    def addressed(self, run: Run) -> Any:  # noqa: ANN401 -- plain values
        """Settings that change its numbers."""
        return self.stage(run).addressed()

    def address(self, run: Run) -> str:
        """Address of its features: a hash of everything that changes their numbers."""
        return address(schema.VERSION, self.name, run.grid, self.addressed(run), self.content(run))

    def fetch(self, run: Run) -> None:  # noqa: B027 -- most have nothing to do
        """Fetch files before any actor starts; runs once.

        Raises:
            WeightsError: a file cannot be had.
        """

    def check_weights(self, run: Run) -> None:  # noqa: B027 -- most have nothing to do
        """Fetch and check weights on a node before actors start there.

        Raises:
            WeightsError: they cannot be had or used.
        """


class System(ABC):
    """A system that predicts valence and arousal.

    Attributes:
        name: of the system.
        model: class of its settings, which is a field of the run.
        space: what a search changes unless flags say otherwise: choices or ranges by dotted path.
        demo_space: a search space that is small enough for two cores.
    """

    name: str
    model: type[Settings]
    space: Space
    demo_space: Space

    @abstractmethod
    def task(self, settings: Any, widths: Mapping[str, int], segment_samples: int) -> Any:  # noqa: ANN401
        """The :class:`affect.learning.task.TrackTask` that builds the model's inputs and joins its outputs.

        It is imported here, not at the top: a command line or an actor that decodes sound does without torch.

        Args:
            settings: of its model.
            widths: width of its inputs, by modality.
            segment_samples: samples of a full segment's waveform.
        """

    @abstractmethod
    def points_per_s(self, run: Run, fps: float) -> float:
        """Points (frames, states or blocks, repeated where windows overlap) that its model computes per second."""

    def settings_address(self, run: Run) -> str:
        """Address of its settings, the content of pretrained weights included."""
        return address(run.settings_of(self.name))

    def title(self, settings: Mapping[str, Any], upstream: Sequence[str]) -> str:
        """Name of a trained model in tables.

        Args:
            settings: of the model, plain.
            upstream: modalities whose models it reads.
        """
        return self.name

    def outdated(self, settings: Mapping[str, Any], version: int) -> str:
        """Reason why a model that was trained by an earlier version cannot be used; empty if it can.

        Args:
            settings: of the model, plain.
            version: :data:`affect.storage.schema.MODEL_VERSION` when it was trained.
        """
        return ""

    def check(self, run: Run) -> None:  # noqa: B027 -- most have nothing to do
        """Check before hours of extraction that training can begin.

        Raises:
            WeightsError: a pretrained model cannot be had.
        """


@dataclass(frozen=True)
class Place:
    """Where a part of a track lies, and everything that decides its numbers.

    Args:
        folder: of the track in the store.
        video: stem of the video.
        fingerprint: of the video.
        person: main, left, right or a number from the left.
        hints: points on the person.
        run: the run.
        clips: key and outcome of every clip, by modality.
        addresses: of the parts of modalities before it.
    """

    folder: str
    video: str
    fingerprint: str
    person: str
    hints: Sequence[tuple[int, float, float]]
    run: Run
    clips: Mapping[str, list[tuple[str, str]]]
    addresses: Mapping[str, str]


@dataclass(frozen=True)
class Evidence:
    """Everything extracted of a video, from which a person's part of it is made.

    Args:
        tables: rows of the whole video by kind; the face's in order of frames and faces.
        person: main, left, right or a number from the left.
        rows: rows of the face's table that show the person.
        everyone: rows of the face's table that show any person.
        clock: times of the video's frames.
        num_frames: frames of the track, which may be fewer or more than the video's.
        segments: of the track.
        ranges: frames ``[f0, f1)`` of each segment before it is cut at the track's end.
        run: the run.
        parts: of modalities before it.
    """

    tables: Mapping[str, pa.Table]
    person: str
    rows: Int[ndarray, " rows"]
    everyone: Int[ndarray, " all_rows"]
    clock: Timestamps
    num_frames: int
    segments: Segments
    ranges: Int[ndarray, "segments 2"]
    run: Run
    parts: Mapping[str, Any]


class Modality(Kind, System):
    """A modality: features of clips, a part of every track, and a model of its own.

    Attributes:
        evidence: label of the frames at which it has evidence, in reports.
        no_evidence: reason at a frame without evidence, in predictions.
        streamed: whether training workers read its inputs through Ray Data instead of holding them.
        has_blocks: whether its model also predicts per block of a segment, which RAAV reads as audio tokens.
        run: class of the runs that have its settings.
        recipes: recipes that come with it, by name: a run and its places, as in
            :data:`affect.settings.recipes.RECIPES`.
    """

    evidence: str
    no_evidence: str
    streamed = False
    has_blocks = False
    run: type[Run] = Run
    recipes: ClassVar[Mapping[str, Recipe]] = {}

    def part_address(self, place: Place) -> str:
        """Address of its part of a track: the person and how the video's clips ended."""
        return address(place.person, place.clips.get(self.name))

    def part_keys(self, place: Place, mark: str) -> dict[str, str]:
        """Keys of the tables of its part, by name of the table.

        Args:
            place: where the track lies.
            mark: from :meth:`part_address`.
        """
        return {self.name: f"{place.folder}/{self.name}-{mark}.arrow"}

    @abstractmethod
    def part(self, evidence: Evidence) -> Any:  # noqa: ANN401 -- the modality's own type
        """A person's part of a video."""

    @abstractmethod
    def tables(self, part: Any) -> dict[str, pa.Table]:  # noqa: ANN401
        """Tables of a part, by the names of :meth:`part_keys`."""

    @abstractmethod
    def load(self, store: Store, keys: Mapping[str, str]) -> Any:  # noqa: ANN401
        """Read a part; what is large stays on the disk and is mapped."""

    @abstractmethod
    def width(self, part: Any) -> int | None:  # noqa: ANN401
        """Width of its model's inputs: 0 of a track without evidence, None where it is fixed."""

    def reasons(self, track: Track) -> list[str]:
        """Reason why it would have no evidence, for each frame."""
        return [self.no_evidence] * track.num_frames

    def trunk_address(self, run: Run) -> str:
        """Address of the stored states of frozen layers that training reads; empty where it reads features."""
        return ""
