"""Training the frame encoder on labelled pictures.

manifests --> order of the epoch's batches --> Ray Data reads and cuts --> Ray Train workers --> checkpoint
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from affect import weights
from affect.corpus.images import Images, read_manifest
from affect.pipeline import graph
from affect.pipeline.encoder_worker import MAX_NAMED
from affect.pipeline.workers import check_workers
from affect.progress import say
from affect.settings.address import address
from affect.settings.encoder import EncoderRun
from affect.settings.training import Workers
from affect.storage import files, schema
from affect.trained.training import EncoderTraining


def train_on(
    run: EncoderRun, images: Sequence[str], development: Sequence[str], held_out: Sequence[str], runs: str
) -> str:
    """Trains a frame encoder on manifests; a finished one is skipped.

    Args:
        run: the run.
        images: manifests of training pictures.
        development: manifests of pictures that select the epoch.
        held_out: manifests of pictures for the report.
        runs: folder of the encoders.

    Returns:
        The encoder's folder.

    Raises:
        ValueError: a manifest is wrong, or there is nothing to train or select on.
    """
    sets = (images, development, held_out)
    content = [[(_folder(path), hashlib.sha256(files.read(path)).hexdigest()) for path in paths] for paths in sets]
    trunk = weights.identity(run.trunk) if run.trunk else ""
    settings = replace(run, trunk="", workers=Workers())
    folder = files.join(files.absolute(runs), "grada", address(schema.VERSION, settings, trunk, content))
    if files.exists(files.join(folder, "config.json")):
        say(f"train grada: there already, {folder}")
    else:
        training, selection, report = ([i for path in paths for i in read_manifest(path)] for paths in sets)
        train_encoder(run, training, selection, report, folder)
    say(f"grada: use it with --face.weights {folder} --face.crop-px {run.shape.crop_px}")
    return folder


def _folder(manifest: str) -> str:
    """Folder of a manifest's pictures: the same lines in another folder are other pictures."""
    return files.absolute(manifest).rpartition("/")[0]


def train_encoder(
    run: EncoderRun,
    training: Sequence[Images],
    development: Sequence[Images],
    held_out: Sequence[Images],
    folder: str,
) -> None:
    """Trains a frame encoder and prints its scores before and after training.

    Args:
        run: the run.
        training: training pictures.
        development: pictures of other people that select the epoch; some need labels of valence and arousal.
        held_out: pictures of further people for the report; may be none.
        folder: gets ``history.json``, ``report.json``, ``model.safetensors`` and, last, ``config.json``.

    Raises:
        ValueError: a person of one set is in another, there is nothing to train or select on, or the workers leave no
            CPU to read pictures with.
    """
    sets = {"training": training, "development": development, "held out": held_out}
    _check_people(sets)
    known = {item.dataset for item in training}
    if unknown := set(run.dataset_weights) - known:
        raise ValueError(f"dataset_weights of {', '.join(sorted(unknown))}: training has {', '.join(sorted(known))}")
    check_workers(run.workers, read=True)
    counts = ", ".join(f"{sum(len(item.uris) for item in items)} {name}" for name, items in sets.items())
    say(f"train grada: pictures {counts}")
    selection, report = (_usable(items, run) for items in (development, held_out))
    graph.train_encoder(EncoderTraining(run, list(training), selection, report, folder))


def _check_people(sets: dict[str, Sequence[Images]]) -> None:
    """Checks that no person and no picture is in two sets.

    Raises:
        ValueError: one is.
    """
    seen: dict[str, str] = {}
    for name, items in sets.items():
        for item in items:
            if item.name != item.dataset and seen.setdefault(item.name, name) != name:
                raise ValueError(f"person {item.name} is in the {seen[item.name]} set and in the {name} set")
            for uri in item.uris:
                if seen.setdefault(uri, name) != name:
                    raise ValueError(f"{uri} is in the {seen[uri]} set and in the {name} set")


def _usable(items: Sequence[Images], run: EncoderRun) -> list[Images]:
    """Items without their unusable pictures, which are printed: every scored picture must be readable."""
    usable, broken = [], []
    for item, row in zip(items, graph.check_pictures([{"item": item} for item in items], run), strict=True):
        broken += list(row["broken"])
        kept = np.array(row["usable"], dtype=bool)
        if kept.all():
            usable.append(item)
        elif kept.any():
            usable.append(item.keep(kept))
    for reason in broken[:MAX_NAMED]:
        say(f"left out: {reason}")
    if len(broken) > MAX_NAMED:
        say(f"left out: {len(broken)} pictures in all")
    return usable
