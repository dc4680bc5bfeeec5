"""Trainings to do: settings, inputs, addresses and folders."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from affect.corpus.images import Images
from affect.modalities import MODALITIES, SYSTEMS
from affect.settings.address import address
from affect.settings.encoder import EncoderRun
from affect.settings.run import Run
from affect.storage import files, schema
from affect.storage.store import Store
from affect.tracks.tables import TrackRef, ratings_table
from affect.trained.folds import frames_of_videos


@dataclass(frozen=True)
class Training:
    """One model to be trained.

    Args:
        run: the run.
        system: the system that the model belongs to.
        refs: training and development tracks.
        embeds: tracks that the trained model embeds for the fusions.
        upstream: address of the model whose embeddings of a track are read, by modality and track.
        models: addresses of the models that embed new tracks for it, by modality.
        settings: address of the system's settings.
        features: addresses of the features that it and its upstream models read, by modality.
        folds: as in :class:`affect.trained.models.Model`.
        store: store of tracks and embeddings.
        runs: folder of the models.
        label: its name in messages.
        trunk: address of the stored trunk states that it reads in place of waveforms; empty: waveforms.
    """

    run: Run
    system: str
    refs: tuple[TrackRef, ...]
    embeds: tuple[TrackRef, ...]
    upstream: Mapping[str, Mapping[str, str]]
    models: Mapping[str, str]
    settings: str
    features: Mapping[str, str]
    folds: int
    store: Store
    runs: str
    label: str
    trunk: str = ""

    @property
    def tables(self) -> tuple[str, ...]:
        """Tables of tracks that it reads besides times and labels; none for a fusion, which reads embeddings."""
        if self.system in MODALITIES:
            return (self.system,)
        return tuple(ratings_table(m) for m in self.run.rates(self.system))

    @cached_property
    def address(self) -> str:
        """Address of all inputs and settings that determine the weights."""
        tracks = sorted((ref.mark(*self.tables), ref.split) for ref in self.refs)
        upstream = {m: sorted(of.items()) for m, of in self.upstream.items()}
        people = sorted((ref.name, ref.shows) for ref in self.refs if ref.shows and SYSTEMS[self.system].solved)
        parts = [schema.VERSION, schema.MODEL_VERSION, self.system, self.settings, tracks, upstream]
        return address(*parts, *([people] if people else []))  # only solved systems fold their own training tracks

    @property
    def uri(self) -> str:
        """Folder of the model."""
        return files.join(self.runs, self.system, self.address)

    @property
    def checkpoint(self) -> str:
        """File of the state of an unfinished training."""
        return files.join(self.uri, "checkpoint.safetensors")

    @property
    def finished(self) -> bool:
        """Whether the trained model is stored."""
        return files.exists(files.join(self.uri, "model.json"))

    @property
    def num_frames_seen(self) -> float:
        """Training frames times epochs of a finished training."""
        epochs = len(json.loads(files.read(files.join(self.uri, "history.json"))))
        return float(epochs * sum(frames_of_videos(self.refs, self.store).values()))

    def without(self, videos: set[str], label: str) -> "Training":
        """A training without the training tracks of some videos, which its model then embeds."""
        held_out = tuple(ref for ref in self.refs if ref.split == "train" and ref.video in videos)
        kept = tuple(ref for ref in self.refs if ref not in held_out)
        return dataclasses.replace(self, refs=kept, embeds=held_out, label=label)


class EncoderTraining(NamedTuple):
    """A training of the frame encoder.

    Args:
        run: the run.
        training: training pictures.
        development: pictures that select the epoch.
        held_out: pictures for the report only; may be none.
        folder: folder of the encoder.
    """

    run: EncoderRun
    training: Sequence[Images]
    development: Sequence[Images]
    held_out: Sequence[Images]
    folder: str
