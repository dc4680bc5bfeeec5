"""Base classes of the records of modalities and fusions; the rest of the program iterates over these records.

    Kind       one kind of features of clips: rows, actors, address, cost
    System     one predictor: settings, task, title, search space, cost
    Modality   both, and its part of a person's track

The records are in ``affect/<name>/modality.py`` and listed in :mod:`affect.modalities`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa
from jaxtyping import Float, Int
from numpy import ndarray

from affect.corpus.clip import Clip
from affect.corpus.probe import Probe
from affect.corpus.track import Segments, Track
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
"""Turns a clip into rows, resuming from a saved part if there is one; saves parts during the work."""


class Work(NamedTuple):
    """Estimated work of an actor per second of video, from sizes of models and inputs.

    Args:
        operations: floating-point operations.
        other_s: seconds of other work.
        words: basis of the estimate, for messages.
    """

    operations: float
    other_s: float
    words: str


def millions(number: float) -> str:
    """A number in millions, rounded to two digits."""
    return f"{float(f'{number / 1e6:.2g}'):,g} million"


class Kind(ABC):
    """One kind of features, extracted from every clip.

    Attributes:
        name: key of its objects in the store, and of its :class:`affect.settings.extraction.Stage` in a run.
        rows: schema of its table.
        finite: columns that models read; rows with a non-finite value in them are left out.
        by_person: whether its rows depend on the person prompts.
        bytes_per_s: assumed bytes per second of video, before any were written.
    """

    name: str
    rows: pa.Schema
    finite: tuple[str, ...] = ()
    by_person = False
    bytes_per_s: float

    def rows_of(self, run: Run) -> pa.Schema:
        """Schema of its table in a run: :attr:`rows`, and columns that settings add."""
        return self.rows

    def stage(self, run: Run) -> Stage:
        """Settings of its extraction."""
        return getattr(run, self.name)

    @abstractmethod
    def extractor(self, run: Run, device: str) -> Extractor:
        """Loads the extractor on ``cuda`` or ``cpu``."""

    @abstractmethod
    def work(self, run: Run, probe: Probe) -> Work:
        """Work of extracting one second of video.

        Raises:
            WeightsError: local weights cannot be read.
        """

    def content(self, run: Run) -> list[str]:
        """Identities of the weights and prompts that affect its values.

        Raises:
            WeightsError: weights that a setting names are not available.
        """
        return []

    def addressed(self, run: Run) -> Any:  # noqa: ANN401 -- plain values
        """Settings that affect its values."""
        return self.stage(run).addressed()

    def address(self, run: Run) -> str:
        """Address of its features: a hash of everything that affects their values."""
        return address(schema.VERSION, self.name, run.grid, self.addressed(run), self.content(run))

    def fetch(self, run: Run) -> None:  # noqa: B027 -- most have nothing to do
        """Downloads files, once, before any actor starts.

        Raises:
            WeightsError: a file is not available.
        """

    def checked_on_nodes(self, run: Run) -> bool:
        """Whether :meth:`check_weights` has to run on every node that may start its actors."""
        return False

    def check_weights(self, run: Run) -> None:  # noqa: B027 -- most have nothing to do
        """Downloads and checks weights on a node before its actors start.

        Raises:
            WeightsError: they are not available or not usable.
        """


class System(ABC):
    """A system that predicts valence and arousal.

    Attributes:
        name: name of the system.
        model: class of its settings, the type of a field of the run.
        space: default search space: choices or ranges by dotted path.
        demo_space: a search space small enough for two cores.
        solved: whether it is fitted in closed form, and predicts from its encoders' ratings before it is: it has no
            epochs, and needs no development set to select one.
    """

    name: str
    model: type[Settings]
    solved = False
    space: Space
    demo_space: Space

    @abstractmethod
    def task(self, settings: Any, widths: Mapping[str, int], segment_samples: int) -> Any:  # noqa: ANN401
        """The :class:`affect.learning.task.TrackTask` that builds the model's inputs and joins its outputs.

        It is imported inside the method: command lines and actors that decode sound do not need torch.

        Args:
            settings: settings of the model, of class :attr:`model`.
            widths: widths of its inputs, by modality.
            segment_samples: samples in the waveform of a full segment.
        """

    @abstractmethod
    def points_per_s(self, run: Run, fps: float) -> float:
        """Points (frames, states or blocks, counted per window) that its model computes per second of video."""

    def settings_address(self, run: Run) -> str:
        """Address of its settings, with the content of pretrained weights."""
        return address(run.settings_of(self.name))

    def title(self, settings: Mapping[str, Any], upstream: Sequence[str]) -> str:
        """Name of a trained model in tables.

        Args:
            settings: settings of the model, as plain JSON.
            upstream: modalities whose models it reads.
        """
        return self.name

    def modalities(self, settings: Mapping[str, Any], upstream: Sequence[str]) -> tuple[str, ...]:
        """Modalities that a trained model reads, directly or through the models of others.

        Args:
            settings: settings of the model, as plain JSON.
            upstream: modalities whose models it reads.
        """
        return tuple(upstream) or (self.name,)

    def outdated(self, settings: Mapping[str, Any], version: int) -> str:
        """Reason why a model that was trained by an earlier version cannot be used; empty if it can.

        Args:
            settings: settings of the model, as plain JSON.
            version: :data:`affect.storage.schema.MODEL_VERSION` at training.
        """
        return ""

    def check(self, run: Run) -> None:  # noqa: B027 -- most have nothing to do
        """Checks, before hours of extraction, that training can start.

        Raises:
            WeightsError: a pretrained model is not available.
        """


@dataclass(frozen=True)
class Place:
    """Place of a track's part in the store, and everything that affects its content.

    Args:
        folder: folder of the track in the store.
        video: stem of the video.
        fingerprint: fingerprint of the video.
        person: main, left, right or a number from the left.
        hints: points on the person's face.
        run: the run.
        clips: key and outcome of every clip, by modality.
        addresses: addresses of the parts of preceding modalities.
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
    """Extracted features of a video, and the person whose part of a track is built from them.

    Args:
        tables: rows of the whole video by kind; the face's sorted by frame and face.
        person: main, left, right or a number from the left.
        rows: indices of the person's rows in the face's table.
        everyone: indices of all persons' rows in the face's table.
        clock: times of the video's frames.
        num_frames: number of frames of the track, which may be fewer or more than the video's.
        segments: segments of the track.
        ranges: frames ``[f0, f1)`` of each segment before the cut at the track's end.
        run: the run.
        parts: parts of the modalities so far.
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
    """A modality: features of clips, a part of every track, and a unimodal model.

    Attributes:
        evidence: label of frames with evidence, in reports.
        no_evidence: reason at frames without evidence, in predictions.
        streamed: whether training workers read its inputs through Ray Data instead of from memory.
        has_blocks: whether its model also predicts per block of a segment, which RAAV reads as audio tokens.
        run: run class that has its settings.
        recipes: recipes that come with it, by name, as in :data:`affect.settings.recipes.RECIPES`.
        rated_with: flag that lets an encoder rate which otherwise rates nothing; empty if there is none.
    """

    evidence: str
    no_evidence: str
    streamed = False
    has_blocks = False
    run: type[Run] = Run
    recipes: ClassVar[Mapping[str, Recipe]] = {}
    rated_with = ""

    def part_address(self, place: Place) -> str:
        """Address of its part of a track: hash of the person and of the clips' keys and outcomes."""
        return address(place.person, place.clips.get(self.name))

    def part_keys(self, place: Place, mark: str) -> dict[str, str]:
        """Keys of the tables of its part, by name of the table.

        Args:
            place: place of the track.
            mark: address from :meth:`part_address`.
        """
        return {self.name: f"{place.folder}/{self.name}-{mark}.arrow"}

    @abstractmethod
    def part(self, evidence: Evidence) -> Any:  # noqa: ANN401 -- a type of the modality
        """Part of a person's track, from the features of the video."""

    @abstractmethod
    def tables(self, part: Any) -> dict[str, pa.Table]:  # noqa: ANN401
        """Tables of a part, by the names of :meth:`part_keys`."""

    @abstractmethod
    def load(self, store: Store, keys: Mapping[str, str]) -> Any:  # noqa: ANN401
        """Reads a part; large arrays are memory-mapped."""

    @abstractmethod
    def width(self, part: Any) -> int | None:  # noqa: ANN401
        """Width of its model's inputs: 0 for a track without evidence, None if the width is fixed."""

    def reasons(self, track: Track) -> list[str]:
        """Reason for each frame that would apply if it has no evidence."""
        return [self.no_evidence] * track.num_frames

    def num_ratings(self, run: Run) -> int:
        """Number of its encoder's own ratings; 0 if the encoder rates nothing."""
        return 0

    def rates_affect(self, run: Run) -> bool:
        """Whether the first two ratings, valence and arousal, are not NaN.

        Raises:
            WeightsError: that is said by weights which are not available.
        """
        return self.num_ratings(run) > 0

    def ratings(self, evidence: Evidence) -> Float[ndarray, "frames K"]:
        """Ratings by its encoder at every frame, valence and arousal first.

        NaN at frames without evidence of the person, and in the columns of what the encoder does not rate.

        Args:
            evidence: as for :meth:`part`; its parts are those of all modalities.
        """
        raise NotImplementedError(f"the encoder of {self.name} rates nothing")

    def trunk_address(self, run: Run) -> str:
        """Address of the stored states of frozen layers that training reads; empty if it reads features."""
        return ""
