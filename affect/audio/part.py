"""A track's audio part: waveforms and verdicts, built from rows of clips, converted to and from tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Float16, Int16
from numpy import ndarray

from affect.audio.speaking import silence_reason, verdicts, with_silence_reason
from affect.corpus.encoder_ratings import ratings_per_frame
from affect.modality import Evidence
from affect.storage import schema
from affect.storage.columns import array, nullable
from affect.storage.rows import Rows
from affect.storage.store import Store

NUM_RATINGS = 3
"""Ratings of a speech-emotion model: valence, arousal, dominance."""


@dataclass(frozen=True)
class FrozenStates:
    """Outputs of the audio model's frozen layers for one segment.

    Args:
        num_samples: samples of its waveform without padding; 0 if there is none.
        states: one per step of the padded waveform.
    """

    num_samples: int
    states: Float16[ndarray, "S D"]


@dataclass(frozen=True)
class AudioPart:
    """Waveforms of a track's segments and verdicts of the mouth filter.

    Args:
        valid: whether there is sound: a waveform that is not silence.
        kept: whether the mouth filter keeps the segment.
        verdict: reason why a segment was not kept; empty if it was.
        waveforms: mono waveforms without padding, empty if there is none; may be read from disk on access.
        frozen: stored outputs of the frozen layers, which training reads instead of waveforms; None if not used.
    """

    valid: Bool[ndarray, " segments"]
    kept: Bool[ndarray, " segments"]
    verdict: list[str]
    waveforms: Sequence[Int16[ndarray, " _"]]
    frozen: Sequence[FrozenStates] | None = None


def waveforms_of(table: pa.Table, num_segments: int) -> list[Int16[ndarray, " _"]]:
    """Waveforms of a video by segment, empty for a segment without."""
    waveforms = [np.empty(0, dtype=np.int16)] * num_segments
    for row in range(table.num_rows):
        waveforms[table["segment"][row].as_py()] = table["waveform"][row].values.to_numpy()
    return waveforms


def from_evidence(evidence: Evidence) -> AudioPart:
    """Audio part of a person: segments in which the person's visible mouth speaks are kept."""
    rule, ranges = evidence.run.wavlm.speaking, evidence.segments.ranges
    waveforms = waveforms_of(evidence.tables["audio"], len(ranges))
    silent = [silence_reason(wave, rule) for wave in waveforms]
    everyone = nullable(evidence.tables["face"].take(evidence.everyone), "lip_area")[:, 0]
    lip_area = evidence.parts["face"].lip_area
    judged = verdicts(lip_area, evidence.clock.fps, ranges, rule, everyone=everyone)
    judged = [with_silence_reason(*pair) for pair in zip(judged, silent, strict=True)]
    return AudioPart(
        valid=np.array([not why for why in silent]),
        kept=np.array([verdict.kept for verdict in judged]),
        verdict=[verdict.reason for verdict in judged],
        waveforms=waveforms,
    )


def ratings_from_evidence(evidence: Evidence) -> Float[ndarray, "frames 3"]:
    """Rater's valence, arousal and dominance at each frame: mean over the kept segments that cover it, NaN without."""
    part: AudioPart = evidence.parts["audio"]
    table = evidence.tables["audio"]
    kept = table.filter(pa.array(part.kept[array(table["segment"])]))
    return ratings_per_frame(kept, evidence.segments.ranges, evidence.num_frames, NUM_RATINGS)


def to_tables(part: AudioPart) -> dict[str, pa.Table]:
    """Tables of a part for the store: verdicts of the person, and waveforms, shared by all people of the video."""
    segment = np.arange(len(part.valid))
    columns = {"segment": segment, "valid": part.valid, "kept": part.kept, "verdict": part.verdict}
    waveforms = {"segment": segment, "waveform": part.waveforms}
    return {
        "audio": pa.table(columns).cast(schema.TRACK["audio"]),
        "waveforms": pa.table(waveforms).cast(schema.TRACK["waveforms"]),
    }


def load(store: Store, keys: Mapping[str, str]) -> AudioPart:
    """Reads a part; waveforms stay on disk."""
    table = store.get(keys["audio"]).table
    verdicts = table["verdict"].to_pylist()
    return AudioPart(array(table["valid"]), array(table["kept"]), verdicts, stored_waveforms(store, keys["waveforms"]))


def stored_waveforms(store: Store, key: str) -> Rows:
    """Waveforms of a video by segment, each read on access."""
    return Rows(store.uri_of(key), _waveform)


def _waveform(row: pa.RecordBatch) -> Int16[ndarray, " samples"]:
    return row["waveform"].flatten().to_numpy()
