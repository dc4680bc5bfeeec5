"""A driver to kill: trains the face's model on the micro corpus, a checkpoint a step. Not collected as a test."""

import sys
from dataclasses import replace

from affect import recipes
from affect.corpus import affwild2
from affect.pipeline import plan
from affect.pipeline.assemble import assemble
from affect.pipeline.job import start_ray
from affect.pipeline.store import Store
from affect.pipeline.train import train
from tests.conftest import micro_run

root, features, runs, num_workers = sys.argv[1:]
start_ray()
run, places, store = micro_run(root), recipes.demo_places(root), Store(features)
workers = replace(run.workers, num_workers=int(num_workers), num_cpus=0.5, checkpoint_steps=1)
fit = replace(run.face_transformer.fit, max_epochs=150, stop_patience=150, ema_decay=0.9)
run = replace(run, systems=("face",), workers=workers, face_transformer=replace(run.face_transformer, fit=fit))
videos = plan.probe_videos(places.videos, store, {})
train(run, assemble(run, videos, affwild2.read_splits(places.labels), store), store, runs)
