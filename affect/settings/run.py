"""Settings of a complete run: extraction, models and training."""

from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, cast, get_type_hints

from affect.settings.base import ADDED, Settings
from affect.settings.extraction import Audio, Behavior, Description, Face, Grid, Pool, Stage, Tracking
from affect.settings.labels import Labels
from affect.settings.models import Dcmmoe, FaceTransformer, Linear, Mamba, Raav, Wavlm
from affect.settings.training import Workers


@dataclass(frozen=True, kw_only=True, slots=True)
class Run(Settings):
    """A complete run: extraction, models, training, and resources.

    A run with a further modality is a subclass with two more fields: a :class:`affect.settings.extraction.Stage` of the
    modality's name, and the settings of its model.
    """

    name: str
    """Name of the recipe."""
    systems: tuple[str, ...] = ("face", "behavior", "audio", "dcmmoe", "raav")
    """Systems to train and predict; the last one gives the final prediction."""
    grid: Grid = field(default_factory=Grid)
    """Segment grid and clip length."""
    face: Face = field(default_factory=Face)
    """Face extraction."""
    behavior: Behavior = field(default_factory=Behavior)
    """Behaviour extraction."""
    description: Description = field(default_factory=Description)
    """Text descriptions, with ``--describe``."""
    audio: Audio = field(default_factory=Audio)
    """Audio extraction."""
    tracking: Tracking = field(default_factory=Tracking)
    """Person tracking."""
    face_transformer: FaceTransformer = field(default_factory=FaceTransformer)
    """Face model."""
    mamba: Mamba = field(default_factory=Mamba)
    """Behaviour model."""
    wavlm: Wavlm = field(default_factory=Wavlm)
    """Audio model."""
    dcmmoe: Dcmmoe = field(default_factory=Dcmmoe)
    """DCMMOE fusion."""
    raav: Raav = field(default_factory=Raav)
    """RAAV fusion."""
    linear: Linear = field(default_factory=Linear, metadata=ADDED)
    """Linear map of the encoders' own ratings."""
    labels: Labels = field(default_factory=Labels, metadata=ADDED)
    """Reading of ratings over time."""
    workers: Workers = field(default_factory=Workers)
    """Training workers."""
    inference: Pool = field(default_factory=lambda: Pool(max_actors=1000))
    """Actors that run trained models: prediction, evaluation, and the audio model's frozen layers. On a CPU each
    uses one thread; 2 GiB of memory per actor limit their number."""

    def check(self) -> None:
        """Checks constraints between fields."""
        self.require(
            self.grid.segment_s == self.wavlm.blocks,
            f"grid.segment_s {self.grid.segment_s} and wavlm.blocks {self.wavlm.blocks}: a block is one second",
        )
        self.require(bool(self.systems), "systems is empty")
        for system in self.systems:
            known, read = self.all_modalities(), self.reads(system)
            unknown = [m for m in (*read, *self.rates(system)) if m not in known]
            self.require(not unknown, f"{system}'s modalities cannot be {', '.join(map(repr, unknown))}, but {known}")
            absent = [m for m in read if m not in self.systems]
            self.require(not absent, f"{system} reads the embeddings of {', '.join(absent)}: add them to systems")
        encoded = bool(self.face.weights) or self.face.encoder == "blendshapes"
        self.require(encoded or "face" not in self.systems, "system face needs face.weights")

    @classmethod
    def fields_of_systems(cls) -> dict[str, str]:
        """Name of the field with each system's settings: modalities, then fusions."""
        found = [
            (hint.system, name, hasattr(hint, "needs"))
            for name, hint in _types(cast(Any, cls))
            if hasattr(hint, "system")
        ]
        return {system: name for system, name, _ in sorted(found, key=lambda entry: not entry[2])}

    @classmethod
    def all_modalities(cls) -> tuple[str, ...]:
        """All modalities that this class has settings for."""
        return tuple(hint.system for _, hint in _types(cast(Any, cls)) if hasattr(hint, "needs"))

    @classmethod
    def stages(cls) -> tuple[str, ...]:
        """Names of the fields with extraction stages."""
        return tuple(
            name for name, hint in _types(cast(Any, cls)) if isinstance(hint, type) and issubclass(hint, Stage)
        )

    @classmethod
    def files(cls) -> tuple[str, ...]:
        """Dotted paths of the settings that name pretrained weights."""
        return tuple(f"{name}.{file}" for name, hint in _types(cast(Any, cls)) for file in getattr(hint, "files", ()))

    def reads(self, system: str) -> tuple[str, ...]:
        """Modalities whose embeddings a fusion reads; empty for the system of a single modality."""
        return getattr(self.settings_of(system), "reads", ())

    def rates(self, system: str) -> tuple[str, ...]:
        """Modalities whose encoders' own ratings a system reads; empty for a system that reads features."""
        return getattr(self.settings_of(system), "rates", ())

    @property
    def rated(self) -> tuple[str, ...]:
        """Modalities whose encoders' own ratings are part of a track."""
        wanted = {m for system in self.systems for m in self.rates(system)}
        return tuple(m for m in self.all_modalities() if m in wanted)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities whose models are trained."""
        return tuple(m for m in self.all_modalities() if m in self.systems)

    @property
    def extracted(self) -> tuple[str, ...]:
        """Modalities whose features are extracted."""
        needed = {m for system in self.systems for m in self.extracted_for(system)}
        return tuple(m for m in self.all_modalities() if m in needed)

    def extracted_for(self, system: str) -> tuple[str, ...]:
        """Modalities whose features a system needs; audio needs the face too, for the mouth filter."""
        read = self.reads(system) or self.rates(system) or (system,)
        needed = {need for m in read for need in self.settings_of(m).needs}
        return tuple(m for m in self.all_modalities() if m in needed)

    def settings_of(self, system: str) -> Any:  # noqa: ANN401 -- a dataclass of settings.models
        """Settings of a system.

        Raises:
            ValueError: there is no such system.
        """
        known = self.fields_of_systems()
        if system not in known:
            raise ValueError(f"there is no system {system}, but {', '.join(known)}")
        return getattr(self, known[system])

    @property
    def segment_samples(self) -> int:
        """Samples in the waveform of a full segment."""
        return round(self.grid.segment_s * self.audio.sample_rate_hz)


@cache
def _types(kind: type) -> list[tuple[str, Any]]:
    """Fields of a run class with their types."""
    hints = get_type_hints(kind)
    return [(f.name, hints[f.name]) for f in fields(kind)]
