"""Record of the audio modality."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from jaxtyping import Float
from numpy import ndarray

from affect import weights
from affect.audio import part
from affect.audio.part import AudioPart
from affect.audio.speaking import frame_reasons
from affect.corpus.probe import Probe
from affect.corpus.track import Track
from affect.modality import Evidence, Extractor, Modality, Place, Work, millions
from affect.settings import models
from affect.settings.address import address
from affect.settings.run import Run
from affect.settings.spaces import Range, under
from affect.storage import schema
from affect.storage.store import Store, slug

WAVLM_HZ = 50.0
"""WavLM states per second of waveform."""
WAVLM_LARGE = 0.3e9
"""Number of weights of WavLM-Large's encoder."""


class Audio(Modality):
    """Features: the waveform of every segment. Model: WavLM on segments in which the visible mouth speaks."""

    name = "audio"
    rows = schema.AUDIO
    bytes_per_s = 64e3
    model = models.Wavlm
    space = under(  # around the paper's values, which the paper does not search
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
    rated_with = "--audio.rater"

    def extractor(self, run: Run, device: str) -> Extractor:
        """Creates the audio decoder and loads the rater, if there is one."""
        from affect.audio.clip import AudioClip

        return AudioClip(run.audio, device)

    def work(self, run: Run, probe: Probe) -> Work:
        """Decoding, and WavLM-Large if segments are rated."""
        if not run.audio.rater:
            return Work(0.0, 0.01, "decoding alone")
        states_per_s = WAVLM_HZ * run.grid.segment_s / run.grid.hop_s
        words = f"{millions(WAVLM_LARGE)} weights, {states_per_s:.0f} states a second"
        return Work(2 * WAVLM_LARGE * states_per_s, 0.01, words)

    def content(self, run: Run) -> list[str]:
        """Identity of the rater, if there is one."""
        return [weights.identity(run.audio.rater, run.audio.rater_revision)] if run.audio.rater else []

    def fetch(self, run: Run) -> None:
        """Downloads the rater's configuration, if there is a rater."""
        if run.audio.rater:
            weights.checkpoint_config(run.audio.rater, run.audio.rater_revision, "ser")

    def checked_on_nodes(self, run: Run) -> bool:
        """True if there is a rater."""
        return bool(run.audio.rater)

    def check_weights(self, run: Run) -> None:
        """Downloads and checks the rater."""
        from affect.audio import rater

        rater.check(run.audio.rater, run.audio.rater_revision)

    def part_address(self, place: Place) -> str:
        """Hash of the face's part (for the mouth filter), the filter's settings, and the clips' keys and outcomes."""
        return address(place.addresses["face"], place.run.wavlm.speaking, place.clips.get(self.name))

    def part_keys(self, place: Place, mark: str) -> dict[str, str]:
        """Keys of the track's verdicts and of the video's waveforms."""
        sound = address(schema.VERSION, place.fingerprint, place.run.grid, place.clips[self.name])
        waveforms = f"waveforms/{slug(place.video)}-{sound}.rows.arrow"
        return {**super().part_keys(place, mark), "waveforms": waveforms}

    def part(self, evidence: Evidence) -> AudioPart:
        """Waveforms of segments, and the mouth filter's verdicts."""
        return part.from_evidence(evidence)

    def tables(self, part_: AudioPart) -> dict[str, pa.Table]:
        """Tables of verdicts and waveforms."""
        return part.to_tables(part_)

    def load(self, store: Store, keys: Mapping[str, str]) -> AudioPart:
        """Reads the verdicts; waveforms are read on access."""
        return part.load(store, keys)

    def num_ratings(self, run: Run) -> int:
        """Valence, arousal and dominance of the rater."""
        return part.NUM_RATINGS if run.audio.rater else 0

    def ratings(self, evidence: Evidence) -> Float[ndarray, "frames 3"]:
        """The rater's valence, arousal and dominance."""
        return part.ratings_from_evidence(evidence)

    def width(self, part_: AudioPart) -> None:
        """None: waveforms have no width."""

    def task(self, settings: Any, widths: Mapping[str, int], segment_samples: int) -> Any:  # noqa: ANN401
        """Task on waveforms of segments."""
        from affect.audio.task import AudioTask

        return AudioTask(settings, segment_samples)

    def points_per_s(self, run: Run, fps: float) -> float:
        """States per second, times the overlap of segments."""
        return WAVLM_HZ * run.grid.segment_s / run.grid.hop_s

    def settings_address(self, run: Run) -> str:
        """Address of its settings, with the content of the backbone instead of its name."""
        content = weights.identity(run.wavlm.weights, run.wavlm.revision)
        return address(dataclasses.replace(run.wavlm, weights="", revision=""), content)

    def title(self, settings: Mapping[str, Any], upstream: Sequence[str]) -> str:
        """Its name, with a note if it was trained on stored states."""
        return "audio (cached trunk)" if settings["cached"] else self.name

    def check(self, run: Run) -> None:
        """Checks that the backbone's configuration can be loaded; its weights are downloaded later."""
        from affect.audio import wavlm

        wavlm.config_folder(run.wavlm.weights, run.wavlm.revision)

    def reasons(self, track: Track) -> list[str]:
        """Reason for each frame: no sound, silence, or a verdict of the mouth filter."""
        return frame_reasons(track.segments.ranges, track.parts[self.name].verdict, track.num_frames)

    def trunk_address(self, run: Run) -> str:
        """Hash of everything that affects the frozen layers' outputs; empty if training does not read stored ones."""
        if not run.wavlm.cached:
            return ""
        content = weights.identity(run.wavlm.weights, run.wavlm.revision)
        return address(schema.VERSION, content, run.wavlm.trained_layers, run.wavlm.fit.precision)
