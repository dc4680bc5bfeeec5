"""A driver to kill: extracts the micro corpus of one folder into another store. Not collected as a test."""

import sys

from affect import recipes
from affect.pipeline.extract import extract
from affect.pipeline.job import start_ray
from affect.pipeline.store import Store
from tests.conftest import micro_run

root, store = sys.argv[1:]
start_ray()
sys.exit(extract(micro_run(root), recipes.demo_places(root).videos, Store(store)).exit_code)
