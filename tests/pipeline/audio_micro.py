"""The micro corpus with many audio segments: one every 0.25 s, all kept, so that an epoch has several steps."""

from dataclasses import replace

from affect.corpus import affwild2
from affect.pipeline.assemble import assemble
from affect.pipeline.extract import extract
from affect.settings.models import Speaking
from affect.settings.recipes import Places
from affect.settings.run import Run
from affect.storage.store import Store
from affect.tracks.tables import TrackRef

ALL_SEGMENTS = Speaking(min_open_s=0.0, min_coverage=0.0)


def audio_run(run: Run, **fit: object) -> Run:
    """A run that trains only WavLM, without a frame encoder: the face stage runs for the mouths."""
    wavlm = replace(
        run.wavlm,
        speaking=ALL_SEGMENTS,
        trained_layers=1,
        fit=replace(run.wavlm.fit, **{"batch_size": 2, "ema_decay": 0.9, **fit}),
    )
    run = replace(run, name="audio", systems=("audio",), face=replace(run.face, weights=""))
    return replace(run, grid=replace(run.grid, hop_s=0.25), wavlm=wavlm)


def assembled_tracks(run: Run, places: Places, store: Store) -> list[TrackRef]:
    """Extracts and assembles the tracks of the labelled videos."""
    videos = extract(run, places.videos, store).videos
    return assemble(run, videos, affwild2.read_splits(places.labels), store)
