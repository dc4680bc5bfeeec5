"""Stored states of the audio model's frozen layers.

STORE/trunk/<address>/<name>-<address:16>.rows.arrow      one row per segment
"""

from dataclasses import replace

import pyarrow as pa

from affect import weights
from affect.corpus.track import Heard, Track
from affect.settings.address import address
from affect.settings.run import Run
from affect.storage import schema
from affect.storage.rows import Rows
from affect.storage.store import Store
from affect.tracks.tables import TrackRef


def trunk_address(run: Run) -> str:
    """Address of everything that decides the states of the frozen layers."""
    content = weights.identity(run.wavlm.weights, run.wavlm.revision)
    return address(schema.VERSION, content, run.wavlm.trained_layers, run.wavlm.fit.precision)


def trunk_key(trunk: str, ref: TrackRef) -> str:
    """Key of what the frozen layers say of a track's video."""
    return f"trunk/{trunk}/{ref.keys['waveforms'].rpartition('/')[2]}"


def with_trunk(track: Track, ref: TrackRef, store: Store, trunk: str) -> Track:
    """A track with what the frozen layers say of its segments; as it is if the address is empty."""
    return track if not trunk else replace(track, heard=Rows(store.uri_of(trunk_key(trunk, ref)), _heard))


def _heard(row: pa.RecordBatch) -> Heard:
    states = row["states"].flatten()
    width = len(states.flatten()) // max(1, len(states))
    return Heard(row["num_samples"][0].as_py(), states.flatten().to_numpy().reshape(len(states), width))
