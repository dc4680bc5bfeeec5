"""Stored outputs of the audio model's frozen layers.

STORE/trunk/<address>/<name>-<address:16>.rows.arrow      one row per segment
"""

from dataclasses import replace

import pyarrow as pa

from affect.audio.part import FrozenStates
from affect.corpus.track import Track
from affect.storage.rows import Rows
from affect.storage.store import Store
from affect.tracks.tables import TrackRef

LARGEST = 65_504.0
"""Largest 16-bit float; larger states are stored as this number."""


def trunk_key(trunk: str, ref: TrackRef) -> str:
    """Key of the stored states of a track's video; ``trunk`` is their address."""
    return f"trunk/{trunk}/{ref.keys['waveforms'].rpartition('/')[2]}"


def with_trunk(track: Track, ref: TrackRef, store: Store, trunk: str) -> Track:
    """Copy of a track whose audio reads stored states instead of waveforms; unchanged if the address is empty."""
    if not trunk:
        return track
    audio = replace(track.parts["audio"], frozen=Rows(store.uri_of(trunk_key(trunk, ref)), _states))
    return replace(track, parts={**track.parts, "audio": audio})


def _states(row: pa.RecordBatch) -> FrozenStates:
    states = row["states"].flatten()
    width = len(states.flatten()) // max(1, len(states))
    return FrozenStates(row["num_samples"][0].as_py(), states.flatten().to_numpy().reshape(len(states), width))
