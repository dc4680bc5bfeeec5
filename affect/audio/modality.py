"""The record of the audio."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from affect import weights
from affect.audio import part
from affect.audio.part import AudioPart
from affect.audio.speaking import frame_reasons
from affect.corpus.track import Track
from affect.corpus.video import Probe
from affect.modality import Evidence, Extractor, Modality, Place, Work
from affect.settings import models
from affect.settings.address import address
from affect.settings.run import Run
from affect.settings.spaces import Range, under
from affect.storage import schema
from affect.storage.store import Store, slug

WAVLM_HZ = 50.0
"""States of WavLM per second of a waveform."""


class Audio(Modality):
    """The waveform of every segment; WavLM over those in which the visible mouth speaks."""

    name = "audio"
    rows = schema.AUDIO
    bytes_per_s = 64e3
    model = models.Wavlm
    space = under(  # around the paper's values; the paper searches none of these
        "wavlm",
        {
            "fit.learning_rate": Range(5e-5, 5e-4),
            "backbone_learning_rate": Range(1e-6, 2e-5),
            "dropout": (0.1, 0.2, 0.3),
        },
    )
    demo_space = under("wavlm", {"dropout": (0.0, 0.2), "fit.learning_rate": Range(5e-4, 5e-3)})
    evidence = "audio heard"
    no_evidence = "no sound"
    streamed = True
    has_blocks = True

    def extractor(self, run: Run, device: str) -> Extractor:
        """The decoder of sound."""
        from affect.audio.clip import AudioClip

        return AudioClip(run.audio)

    def work(self, run: Run, probe: Probe) -> Work:
        """Decoding alone."""
        return Work(0.0, 0.01, "decoding alone")

    def part_address(self, place: Place) -> str:
        """The face's part, whose mouth is judged, the rule, and how the clips ended."""
        return address(place.addresses["face"], place.run.wavlm.speaking, place.clips.get(self.name))

    def part_keys(self, place: Place, mark: str) -> dict[str, str]:
        """Verdicts of the track, and waveforms of its video."""
        sound = address(schema.VERSION, place.fingerprint, place.run.grid, place.clips[self.name])
        waveforms = f"waveforms/{slug(place.video)}-{sound}.rows.arrow"
        return {**super().part_keys(place, mark), "waveforms": waveforms}

    def part(self, evidence: Evidence) -> AudioPart:
        """Waveforms of segments, and which of them are kept."""
        return part.from_evidence(evidence)

    def tables(self, part_: AudioPart) -> dict[str, pa.Table]:
        """Verdicts and waveforms."""
        return part.to_tables(part_)

    def load(self, store: Store, keys: Mapping[str, str]) -> AudioPart:
        """Read the verdicts; waveforms are read at their access."""
        return part.load(store, keys)

    def width(self, part_: AudioPart) -> None:
        """Waveforms have no width."""

    def task(self, settings: Any, widths: Mapping[str, int], segment_samples: int) -> Any:  # noqa: ANN401
        """Waveforms of segments."""
        from affect.audio.task import AudioTask

        return AudioTask(settings, segment_samples)

    def points_per_s(self, run: Run, fps: float) -> float:
        """States, repeated where segments overlap."""
        return WAVLM_HZ * run.grid.segment_s / run.grid.hop_s

    def settings_address(self, run: Run) -> str:
        """Address of its settings, with the content of the backbone in place of its name."""
        content = weights.identity(run.wavlm.weights, run.wavlm.revision)
        return address(dataclasses.replace(run.wavlm, weights="", revision=""), content)

    def title(self, settings: Mapping[str, Any], upstream: Sequence[str]) -> str:
        """Its name, and whether it was trained on stored states."""
        return "audio (cached trunk)" if settings["cached"] else self.name

    def check(self, run: Run) -> None:
        """See that the backbone is one that can be loaded; a hub's weights are fetched later."""
        from affect.audio import wavlm

        wavlm.config_folder(run.wavlm.weights, run.wavlm.revision)

    def reasons(self, track: Track) -> list[str]:
        """No sound, silence, or a mouth that is not seen to speak."""
        return frame_reasons(track.segments.ranges, track.parts[self.name].verdict, track.num_frames)

    def trunk_address(self, run: Run) -> str:
        """Address of everything that decides the states after the frozen layers, where training reads them."""
        if not run.wavlm.cached:
            return ""
        content = weights.identity(run.wavlm.weights, run.wavlm.revision)
        return address(schema.VERSION, content, run.wavlm.trained_layers, run.wavlm.fit.precision)
