"""Tracks on disk: times and labels, and tables of each modality; training memory-maps them.

STORE/tracks/<slug>-<address:16>/frames.arrow, segments.arrow                 time and labels
STORE/tracks/<slug>-<address:16>/<modality>-<address:16>.arrow                a modality's part
STORE/tracks/<slug>-<address:16>/ratings_<modality>-<address:16>.arrow        ratings of its encoder
STORE/waveforms/<slug>-<address:16>.rows.arrow                                a video's waveforms, one row per segment
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from numpy import ndarray

from affect.corpus.affwild2 import Split
from affect.corpus.track import Segments, Track
from affect.modalities import MODALITIES
from affect.settings.address import address
from affect.storage import schema
from affect.storage.columns import array, list_column, matrix, nullable
from affect.storage.store import Store

BASE = ("frames", "segments")
"""Tables that every model reads."""


def ratings_table(modality: str) -> str:
    """Name of the table with the ratings of a modality's encoder."""
    return f"ratings_{modality}"


@dataclass(frozen=True)
class TrackRef:
    """Reference to a track's tables in the store.

    Args:
        name: name of the track.
        split: train, development or held_out.
        video: stem of its video.
        person: main, left or right.
        keys: keys of its tables, by table.
        content: fingerprint of the video's content, independent of its file name.
        shows: whom it shows, where the labels say it; folds keep videos of the same people together.
    """

    name: str
    split: Split
    video: str
    person: str
    keys: Mapping[str, str]
    content: str
    shows: str = ""

    @property
    def source(self) -> str:
        """Identity of the person, ``<content>/<person>``, independent of file names, labels and settings."""
        return f"{self.content}/{self.person}"

    def __hash__(self) -> int:
        """Hashes name and keys, which determine the content."""
        return hash((self.name, *sorted(self.keys.values())))

    def mark(self, *tables: str) -> str:
        """Address of tables besides times and labels, which are included."""
        return address(self.name, [self.keys[table] for table in (*BASE, *tables)])


def to_tables(track: Track) -> dict[str, pa.Table]:
    """Tables of a track, by name."""
    segments = track.segments
    gold = [pa.array(track.gold[:, i], pa.float32(), from_pandas=True) for i in (0, 1)]
    columns: dict[str, dict[str, Any]] = {
        "frames": {
            "frame": np.arange(track.num_frames),
            "time_s": track.time_s,
            "gold_valence": gold[0],
            "gold_arousal": gold[1],
        },
        "segments": {
            "segment": np.arange(len(segments.ranges)),
            "start_s": segments.start_s,
            "end_s": segments.end_s,
            "first_frame": segments.ranges[:, 0],
            "end_frame": segments.ranges[:, 1],
            "full": segments.full,
            "block_edges": list_column(segments.block_edges, pa.int32()),
        },
    }
    tables = {name: pa.table(values).cast(schema.TRACK[name]) for name, values in columns.items()}
    for modality, part in track.parts.items():
        tables |= MODALITIES[modality].tables(part)
    for modality, values in track.ratings.items():
        known = ~np.isnan(values).all(axis=1)
        known |= not known.any()  # a track without any keeps their number
        rated = {"frame": np.arange(track.num_frames), "ratings": list_column(values, pa.float32(), known)}
        tables[ratings_table(modality)] = pa.table(rated).cast(schema.TRACK["ratings"])
    return tables


def load_track(store: Store, ref: TrackRef, wanted: Collection[str] | None = None) -> Track:
    """Reads a track; large arrays are memory-mapped.

    Args:
        store: the store.
        ref: the track.
        wanted: modalities, and names from :func:`ratings_table`, to read if the track has them; all if None.
    """
    frames, times = (store.get(ref.keys[name]).table for name in BASE)
    names = ref.keys.keys() if wanted is None else ref.keys.keys() & set(wanted)
    return Track(
        name=ref.name,
        video=ref.video,
        person=ref.person,
        time_s=array(frames["time_s"]),
        gold=nullable(frames, "gold_valence", "gold_arousal"),
        segments=Segments(
            start_s=array(times["start_s"]),
            end_s=array(times["end_s"]),
            ranges=np.stack([array(times["first_frame"]), array(times["end_frame"])], axis=1),
            full=array(times["full"]),
            block_edges=matrix(times["block_edges"]),
        ),
        parts={m: MODALITIES[m].load(store, ref.keys) for m in MODALITIES if m in names},
        ratings={
            m: _ratings(store.get(ref.keys[ratings_table(m)]).table) for m in MODALITIES if ratings_table(m) in names
        },
        shows=ref.shows,
    )


def _ratings(table: pa.Table) -> Float[ndarray, "frames K"]:
    """Ratings of every frame, NaN without any."""
    known = table["ratings"].is_valid().to_numpy()
    values = matrix(table["ratings"].drop_null())
    found = np.full((table.num_rows, values.shape[1]), np.nan, dtype=np.float32)
    found[known] = values
    return found
