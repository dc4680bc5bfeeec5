"""Embeddings and predictions of trained unimodal models: the inputs of the fusions.

STORE/embedded/<model>/<track>-<address:16>/{frames,blocks}.arrow
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy import ndarray
from torch import nn

from affect.corpus.track import Blocks, Series, Track
from affect.learning import batches
from affect.learning.batches import Outputs
from affect.learning.task import TrackTask
from affect.modalities import MODALITIES
from affect.storage import schema
from affect.storage.columns import list_column, matrix
from affect.storage.extracted import Extracted
from affect.storage.store import Store, slug
from affect.tracks.tables import TrackRef


def embed(task: TrackTask, track: Track, outputs: Outputs) -> tuple[Series, Blocks | None]:
    """Outputs of a trained unimodal model on a track: per frame, and per block if the model has them."""
    return task.series(track, outputs), task.blocks(track, outputs)


def put_embedded(
    store: Store, modality: str, model: str, task: TrackTask, network: nn.Module, track: Track, ref: TrackRef
) -> None:
    """Writes the outputs of a unimodal model on a track; the object of frames is last and marks completion."""
    device = next(network.parameters()).device
    track = task.prepare(track)
    series, blocks = embed(task, track, batches.run(task, network, track, device))
    if blocks is not None:
        num, per_segment, width = blocks.embedding.shape
        columns = {
            "segment": np.repeat(np.arange(num), per_segment),
            "block": np.tile(np.arange(per_segment), num),
            "embedding": list_column(blocks.embedding.reshape(-1, width), pa.float32()),
            "valence": blocks.prediction[..., 0].reshape(-1),
            "arousal": blocks.prediction[..., 1].reshape(-1),
            "valid": blocks.valid.reshape(-1),
        }
        table = pa.table(columns).cast(schema.EMBEDDED_BLOCKS)
        store.put(embedded_key(model, modality, ref, "blocks"), Extracted(table))
    columns = {
        "frame": np.arange(track.num_frames),
        "embedding": list_column(series.embedding, pa.float32()),
        "valence": series.prediction[:, 0],
        "arousal": series.prediction[:, 1],
        "valid": series.valid,
    }
    table = pa.table(columns).cast(schema.EMBEDDED_FRAMES)
    store.put(embedded_key(model, modality, ref, "frames"), Extracted(table))


def embedded_key(model: str, modality: str, ref: TrackRef, part: str = "frames") -> str:
    """Key of a unimodal model's outputs on a track; ``part`` is ``frames`` or ``blocks``."""
    return f"embedded/{model}/{slug(ref.name)}-{ref.mark(modality)}/{part}.arrow"


def with_embeddings(track: Track, ref: TrackRef, store: Store, models: Mapping[str, str]) -> Track:
    """Copy of a track with the stored outputs of unimodal models.

    Args:
        track: the track.
        ref: reference of the track.
        store: store with the embeddings.
        models: addresses of the models, by modality.

    Raises:
        ValueError: a model's outputs are missing.
    """
    series: dict[str, Series] = {}
    blocks = None
    for modality, model in models.items():
        try:
            frames = store.get(embedded_key(model, modality, ref)).table
            if MODALITIES[modality].has_blocks:
                table = store.get(embedded_key(model, modality, ref, "blocks")).table
                blocks = _blocks(table, len(track.segments.ranges), modality)
        except FileNotFoundError:
            raise ValueError(
                f"track {track.name}: {store.uri} has no {modality} embeddings of model {model}; "
                f"jobs/train.py with {modality} among its systems makes them"
            ) from None
        embedding, prediction, valid = _outputs(frames)
        series[modality] = Series(embedding, prediction, valid)
    return dataclasses.replace(track, series=series, blocks=blocks)


def _outputs(table: pa.Table) -> tuple[ndarray, ndarray, ndarray]:
    two = np.stack([table["valence"].to_numpy(), table["arousal"].to_numpy()], axis=1)
    return matrix(table["embedding"]), two, table["valid"].to_numpy()


def _blocks(table: pa.Table, num_segments: int, modality: str) -> Blocks:
    embedding, prediction, valid = _outputs(table)
    valid = valid.reshape(num_segments, -1)
    return Blocks(embedding.reshape(*valid.shape, -1), prediction.reshape(*valid.shape, 2), valid, modality)
