"""Searches settings of the face model on the micro corpus: a driver that tests kill."""

import sys
from dataclasses import replace

from affect.corpus import affwild2
from affect.corpus.videos import find
from affect.pipeline.assemble import assemble
from affect.pipeline.job import start_ray
from affect.pipeline.probe import probe_videos
from affect.pipeline.tune import conclude, prepare, search
from affect.settings import recipes
from affect.settings.spaces import check, parse
from affect.storage.store import Store
from affect.trained.search import SearchOptions
from tests.conftest import micro_run

root, features, runs, num_trials, num_workers, epochs = sys.argv[1:]
start_ray()
run, places, store = micro_run(root), recipes.demo_places(root), Store(features)
workers = replace(run.workers, num_workers=int(num_workers), num_cpus=0.5 if int(num_workers) else 1.0)
fit = replace(run.face_transformer.fit, max_epochs=int(epochs), stop_patience=int(epochs))
transformer = replace(run.face_transformer, fit=fit)
run = replace(run, systems=("face",), workers=workers, face_transformer=transformer)
refs = assemble(run, probe_videos(find(places.videos), store, {}), affwild2.read_splits(places.labels), store)
words = ["face_transformer.hidden=32,64", "face_transformer.fit.learning_rate=1e-4..1e-2"]
job = prepare(run, refs, store, runs, SearchOptions("killed", check(parse(words), run), int(num_trials)))
conclude(job, search(job), [(places.videos, places.labels)], {})
