"""A complete run: every setting of extraction, models and training."""

from dataclasses import dataclass, field
from typing import Any

from affect.settings.base import Settings
from affect.settings.extraction import Audio, Behavior, Description, Face, Grid, Pool, Tracking
from affect.settings.models import Dcmmoe, FaceTransformer, Mamba, Raav, Wavlm
from affect.settings.names import FIELDS, MODALITIES, SYSTEMS, Modality, System
from affect.settings.training import Workers


@dataclass(frozen=True, kw_only=True, slots=True)
class Run(Settings):
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

    def check(self) -> None:
        """Check what fields ask of each other."""
        self.require(
            self.grid.segment_s == self.wavlm.blocks,
            f"grid.segment_s {self.grid.segment_s} and wavlm.blocks {self.wavlm.blocks}: a block is one second",
        )
        self.require(bool(self.systems), "systems is empty")
        for system in self.systems:
            absent = [m for m in self.reads(system) if m not in self.systems]
            self.require(not absent, f"{system} reads the embeddings of {', '.join(absent)}: add them to systems")
        self.require(bool(self.face.weights) or "face" not in self.systems, "system face needs face.weights")

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
