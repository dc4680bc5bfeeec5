"""Writes the embeddings that a finished model still has to make."""

import torch

from affect.progress import Meter
from affect.tracks.tables import load_track
from affect.trained.embedded import embedded_key, put_embedded
from affect.trained.models import load_model
from affect.trained.training import Training


def embed_missing(training: Training) -> None:
    """Writes a finished unimodal model's embeddings of the tracks that the store has none of."""
    modality = training.system
    mark, store = training.address, training.store
    present = store.keys(f"embedded/{mark}")
    missing = [ref for ref in training.embeds if embedded_key(mark, modality, ref) not in present]
    if not missing:
        return
    model = load_model(training.uri)
    device = torch.device("cuda" if training.run.workers.use_gpu and torch.cuda.is_available() else "cpu")
    network, task = model.network(device), model.task()
    with Meter(f"embed by {training.label}", float(len(missing)), "tracks") as meter:
        for ref in missing:
            put_embedded(store, modality, mark, task, network, load_track(store, ref, training.tables), ref)
            meter.advance(1.0)
