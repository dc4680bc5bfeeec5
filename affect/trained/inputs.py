"""Inputs of a training, as each of its processes reads them."""

from collections.abc import Sequence
from typing import NamedTuple

from affect.corpus.track import Track
from affect.learning.fit import keep_freed_memory
from affect.learning.task import TrackTask
from affect.modalities import MODALITIES, SYSTEMS
from affect.storage.rows import raise_open_file_limit
from affect.tracks.tables import TrackRef, load_track
from affect.trained.embedded import with_embeddings
from affect.trained.training import Training
from affect.trained.trunk import with_trunk


class Prepared(NamedTuple):
    """Inputs of a training in one process.

    Args:
        task: builds the model, its inputs and its loss.
        tracks: training and development tracks by name.
        widths: widths of the features or embeddings that the model reads, by modality.
    """

    task: TrackTask
    tracks: dict[str, Track]
    widths: dict[str, int]


def prepared(training: Training) -> Prepared:
    """Loads the tracks of a training and makes its task.

    Raises:
        ValueError: tracks cannot be used together, or embeddings are missing.
    """
    raise_open_file_limit()
    keep_freed_memory()
    tracks = {ref.name: _load(training, ref) for ref in training.refs}
    widths = _widths(training, list(tracks.values()))
    settings = training.run.settings_of(training.system)
    task = SYSTEMS[training.system].task(settings, widths, training.run.segment_samples)
    return Prepared(task, {name: task.prepare(track) for name, track in tracks.items()}, widths)


def _load(training: Training, ref: TrackRef) -> Track:
    """A track with features, embeddings or trunk states, whichever the system reads."""
    track = load_track(training.store, ref, training.tables)
    upstream = {m: of[ref.name] for m, of in training.upstream.items()}
    if upstream:
        return with_embeddings(track, ref, training.store, upstream)
    return with_trunk(track, ref, training.store, training.trunk)


def _widths(training: Training, tracks: Sequence[Track]) -> dict[str, int]:
    """Widths of the features or embeddings that a system reads; tracks without any have none.

    Raises:
        ValueError: widths differ between tracks, because different models made them, or no track has any features.
    """
    found: dict[str, dict[int, str]] = {}
    needed: set[str] = set()
    for track in tracks:
        widths: dict[str, int | None] = {m: MODALITIES[m].width(part) for m, part in track.parts.items()}
        widths |= {m: values.shape[1] for m, values in track.ratings.items()}
        if training.upstream:
            widths = {m: series.embedding.shape[1] for m, series in track.series.items()}
        needed |= {m for m, width in widths.items() if width is not None}
        for name, width in widths.items():
            if width:
                found.setdefault(name, {})[width] = track.name
    for name, of in found.items():
        if len(of) > 1:
            raise ValueError(f"{name} is not equally wide in all tracks: {of}; they come from different models")
    if lacking := sorted(needed - found.keys()):
        raise ValueError(f"no track has any {', '.join(lacking)} features: nothing to train {training.system} on")
    return {name: width for name, of in found.items() for width in of}
