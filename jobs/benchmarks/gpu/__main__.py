"""A part of the check of a GPU machine: ``python -m benchmarks.gpu PART --rows FILE --seconds S --device DEVICE``."""

import argparse
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import torch

from .book import Book
from .kernel import kernel
from .models import models
from .speed import compiled, speed
from .vlm import vlm

PARTS = {part.__name__: part for part in (models, vlm, speed, kernel, compiled)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--rows", type=Path, required=True, help="file of the rows")
    parser.add_argument("--seconds", type=float, required=True, help="checks that would start later are left out")
    parser.add_argument("--device", required=True, help="cuda or cpu")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    given = parser.parse_args()
    if given.device == "cpu":
        torch.set_num_threads(1 if given.quick else 2)
    # The benchmarks take two threads, which wait for each other where cores are busy.
    with mock.patch.object(torch, "set_num_threads") if given.quick else nullcontext():
        PARTS[given.part](Book(given.part, given.rows, given.seconds), torch.device(given.device), quick=given.quick)
