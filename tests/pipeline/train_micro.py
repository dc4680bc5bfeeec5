"""Trains a model on the micro corpus with a checkpoint at every step: a driver that tests kill."""

import sys
from dataclasses import replace

from affect.corpus import affwild2
from affect.corpus.videos import find
from affect.pipeline.assemble import assemble
from affect.pipeline.job import start_ray
from affect.pipeline.probe import probe_videos
from affect.pipeline.train import train
from affect.settings import recipes
from affect.storage.store import Store
from tests.conftest import micro_run
from tests.pipeline.audio_micro import assembled_tracks, audio_run

root, features, runs, num_workers, system = sys.argv[1:]
start_ray()
run, places, store = micro_run(root), recipes.demo_places(root), Store(features)
workers = replace(run.workers, num_workers=int(num_workers), num_cpus=0.5, loader_cpus=0.5, checkpoint_steps=1)
if system == "audio":  # two steps each; on Ray Train an epoch takes seconds
    epochs = 6 if workers.num_workers else 20
    run = replace(audio_run(run, max_epochs=epochs, stop_patience=epochs), workers=workers)
    refs = assembled_tracks(run, places, store)
else:
    fit = replace(run.face_transformer.fit, max_epochs=150, stop_patience=150, ema_decay=0.9)
    transformer = replace(run.face_transformer, fit=fit)
    run = replace(run, systems=("face",), workers=workers, face_transformer=transformer)
    videos = probe_videos(find(places.videos), store, {})
    refs = assemble(run, videos, affwild2.read_splits(places.labels), store)
train(run, refs, store, runs)
