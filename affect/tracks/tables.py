"""Tracks on disk: one table per part, of which training maps what it reads into memory.

STORE/tracks/<slug>-<address:16>/frames.arrow, segments.arrow                 time and labels
STORE/tracks/<slug>-<address:16>/{face,behavior,audio}-<address:16>.arrow     what a modality's model reads
STORE/waveforms/<slug>-<address:16>.rows.arrow                                a video's sound, segment by segment
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Int16
from numpy import ndarray

from affect.audio.speaking import NO_SOUND
from affect.corpus.affwild2 import Split
from affect.corpus.track import Patches, Segments, Track
from affect.settings.address import address
from affect.settings.names import MODALITIES, Modality
from affect.storage import schema
from affect.storage.columns import array, matrix, nullable, ragged, rows_of
from affect.storage.rows import Rows
from affect.storage.store import Store

Part = Literal["frames", "segments", "face", "behavior", "audio", "waveforms"]
BASE: tuple[Part, ...] = ("frames", "segments")
"""Parts that every model reads."""
SILENCE = np.empty(0, dtype=np.int16)
"""The waveform of a segment without sound."""


@dataclass(frozen=True)
class TrackRef:
    """Where a track's tables are.

    Args:
        name: of the track.
        split: whether it is learned from, selected on, or neither.
        video: stem of its video.
        person: main, left or right.
        keys: of its parts in the store.
        content: fingerprint of the video's content, whatever it is called.
    """

    name: str
    split: Split
    video: str
    person: str
    keys: Mapping[Part, str]
    content: str

    @property
    def source(self) -> str:
        """The person in the video, whatever file, annotation and settings say it by: ``<content>/<person>``."""
        return f"{self.content}/{self.person}"

    def __hash__(self) -> int:
        """By what decides its content."""
        return hash((self.name, *sorted(self.keys.values())))

    def mark(self, *modalities: Modality) -> str:
        """Address of the parts that models of these modalities read, labels included."""
        return address(self.name, [self.keys[part] for part in (*BASE, *modalities)])


def to_tables(track: Track) -> dict[Part, pa.Table]:
    """A track as one table per part."""
    segments = track.segments
    frame, segment = np.arange(track.num_frames), np.arange(len(segments.ranges))
    gold = [pa.array(track.gold[:, i], pa.float32(), from_pandas=True) for i in (0, 1)]
    columns: dict[Part, dict[str, Any]] = {
        "frames": {"frame": frame, "time_s": track.time_s, "gold_valence": gold[0], "gold_arousal": gold[1]},
        "segments": {
            "segment": segment,
            "start_s": segments.start_s,
            "end_s": segments.end_s,
            "first_frame": segments.ranges[:, 0],
            "end_frame": segments.ranges[:, 1],
            "full": segments.full,
            "block_edges": rows_of(segments.block_edges, pa.int32()),
        },
        "face": {
            "frame": frame,
            "valid": track.face_valid,
            "embedding": rows_of(track.face_embedding, pa.float32()),
            "lip_area": pa.array(track.lip_area, pa.float32(), from_pandas=True),
        },
        "behavior": {
            "segment": segment,
            "valid": segments.behavior_valid,
            "multimodal": rows_of(segments.multimodal, pa.float16()),
            "vision": rows_of(segments.vision, pa.float16()),
            **_patches(segments),
        },
        "audio": {
            "segment": segment,
            "valid": segments.audio_valid,
            "kept": segments.kept,
            "verdict": segments.verdict,
        },
        "waveforms": {"segment": segment, "waveform": segments.waveforms},
    }
    return {part: pa.table(values).cast(schema.TRACK[part]) for part, values in columns.items()}


def _patches(segments: Segments) -> dict[str, pa.ListArray]:
    """States and frames of temporal patches, by segment."""
    patches = segments.patches
    counts = np.bincount(patches.segment, minlength=len(segments.ranges))
    return {
        "patches": ragged(patches.states.reshape(-1), counts * patches.states.shape[1], pa.float16()),
        "patch_first_frame": ragged(patches.ranges[:, 0], counts, pa.int32()),
        "patch_end_frame": ragged(patches.ranges[:, 1], counts, pa.int32()),
    }


def load_track(store: Store, ref: TrackRef, modalities: Collection[Modality] = MODALITIES) -> Track:
    """Read a track that :func:`assemble` wrote; what is large stays on the disk and is mapped.

    Args:
        store: where it is.
        ref: which.
        modalities: the parts that are wanted; the others are as if nothing had been seen or heard.
    """
    base = {part: store.get(ref.keys[part]).table for part in BASE}
    num_frames, num_segments = base["frames"].num_rows, base["segments"].num_rows
    parts: dict[Modality, pa.Table] = {m: store.get(ref.keys[m]).table for m in modalities if m in ref.keys}
    times = base["segments"]
    return Track(
        name=ref.name,
        video=ref.video,
        person=ref.person,
        time_s=array(base["frames"]["time_s"]),
        gold=nullable(base["frames"], "gold_valence", "gold_arousal"),
        **(_read_face(parts["face"]) if "face" in parts else _no_face(num_frames)),
        segments=Segments(
            start_s=array(times["start_s"]),
            end_s=array(times["end_s"]),
            ranges=np.stack([array(times["first_frame"]), array(times["end_frame"])], axis=1),
            full=array(times["full"]),
            block_edges=matrix(times["block_edges"]),
            **(_read_behavior(parts["behavior"]) if "behavior" in parts else _no_behavior(num_segments)),
            **(_read_audio(parts["audio"]) if "audio" in parts else _no_audio(num_segments)),
            waveforms=waveforms(store, ref.keys["waveforms"]) if "audio" in parts else [SILENCE] * num_segments,
        ),
    )


def _read_face(table: pa.Table) -> dict[str, Any]:
    return {
        "face_valid": array(table["valid"]),
        "face_embedding": matrix(table["embedding"]),
        "lip_area": nullable(table, "lip_area")[:, 0],
    }


def _no_face(num: int) -> dict[str, Any]:
    nobody, unknown = np.zeros(num, dtype=bool), np.full(num, np.nan)
    return {"face_valid": nobody, "face_embedding": np.zeros((num, 0)), "lip_area": unknown}


def _read_behavior(table: pa.Table) -> dict[str, Any]:
    states = {name: matrix(table[name]) for name in ("multimodal", "vision")}
    return {"behavior_valid": array(table["valid"]), **states, "patches": _read_patches(table)}


def _read_patches(table: pa.Table) -> Patches:
    values, first, end = (table[n].chunk(0) for n in ("patches", "patch_first_frame", "patch_end_frame"))
    counts = first.value_lengths().to_numpy()
    if not counts.any():
        return Patches.none()
    ranges = np.stack([first.flatten().to_numpy(), end.flatten().to_numpy()], axis=1)
    states = values.flatten().to_numpy().reshape(len(ranges), -1)
    return Patches(states, ranges, np.repeat(np.arange(len(counts)), counts))


def _no_behavior(num: int) -> dict[str, Any]:
    nothing = np.zeros((num, 0), dtype=np.float32)
    states = {"multimodal": nothing, "vision": nothing, "patches": Patches.none()}
    return {"behavior_valid": np.zeros(num, dtype=bool), **states}


def _read_audio(table: pa.Table) -> dict[str, Any]:
    return {
        "audio_valid": array(table["valid"]),
        "kept": array(table["kept"]),
        "verdict": table["verdict"].to_pylist(),
    }


def _no_audio(num: int) -> dict[str, Any]:
    silence = np.zeros(num, dtype=bool)
    return {"audio_valid": silence, "kept": silence, "verdict": [NO_SOUND] * num}


def waveforms(store: Store, key: str) -> Rows:
    """A video's waveforms by segment, each read when it is asked for."""
    return Rows(store.uri_of(key), _waveform)


def _waveform(row: pa.RecordBatch) -> Int16[ndarray, " samples"]:
    return row["waveform"].flatten().to_numpy()
