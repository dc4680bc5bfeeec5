"""Corpus of the demo, and small checkpoints that the real code loads."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy import ndarray
from PIL import Image

from affect.console import tiny
from affect.corpus import affwild2, demo, video
from affect.corpus.images import read_manifest
from affect.corpus.videos import File, find
from affect.face.clip import Finder
from affect.face.crop import Crop
from affect.face.mesh import FIRST
from affect.face.tracks import Faces, person_named, persons
from affect.pipeline.encoder import train_encoder
from affect.progress import say
from affect.settings import recipes
from affect.settings.extraction import Face, Tracking
from affect.settings.recipes import Places
from affect.settings.run import Run
from affect.storage import files
from affect.storage.store import encode_csv

FRAME_STEP = 3
"""Every third frame becomes a training picture of the encoder."""
SPLITS: tuple[demo.Split, ...] = ("train", "development", "held_out")


def prepare(run: Run, places: Places, size: demo.Size = "demo") -> None:
    """Makes the corpus and the missing checkpoints.

    Args:
        run: the demo's run, which names the folders of the checkpoints.
        places: folders of the corpus.
        size: size of the corpus.
    """
    corpus = Path(places.labels).parent
    say(f"demo: corpus of generated talking heads in {corpus}")
    demo.make_corpus(corpus, size, mapper=_on_ray)
    for name, folder, make in (
        ("Qwen3-VL", Path(run.behavior.weights), tiny.make_qwen),
        ("WavLM", Path(run.wavlm.weights), tiny.make_wavlm),
    ):
        if not folder.is_dir():
            say(f"demo: tiny random {name} checkpoint in {folder}")
            part = folder.with_name(f"{folder.name}.part")
            make(part)
            part.rename(folder)
    folder = Path(run.face.weights)
    if not folder.is_dir():
        say(f"demo: training a narrow frame encoder for {folder}")
        pictures = corpus.parent / "crops"
        train, development, held_out = (read_manifest(str(_cut(run.face, places, split, pictures))) for split in SPLITS)
        part = folder.with_name(f"{folder.name}.part")
        train_encoder(recipes.demo_grada(), train, development, held_out, str(part))
        part.rename(folder)


def _on_ray(function: Callable[[Any], int], items: Iterable[Any]) -> list[int]:
    """Applies a function to items in Ray tasks; results in order."""
    remote: Any = ray.remote(num_cpus=1)(_apply)
    return ray.get([remote.remote(function, item) for item in items])


def _apply(function: Callable[[Any], int], item: Any) -> int:  # noqa: ANN401 -- any argument of the function
    """Calls a function in a Ray task, which needs a function of a module."""
    return function(item)


def _cut(settings: Face, places: Places, split: demo.Split, folder: Path) -> Path:
    """Writes crops of the people of a split, and the manifest that lists them; returns the manifest."""
    manifest = folder / f"{split}.csv"
    if manifest.is_file():
        return manifest
    if split == "held_out":
        labels, root = affwild2.read_folder(places.truth), places.new_videos
    else:
        labels, root = affwild2.read_splits(places.labels)[split], places.videos
    known = find(root).videos
    remote: Any = ray.remote(num_cpus=1)(_cut_track)
    jobs = [remote.remote(settings, known, name, list(labels), gold, folder) for name, gold in labels.items()]
    rows = [row for part in ray.get(jobs) for row in part]
    files.write(str(manifest), encode_csv(pa.Table.from_pylist(rows)))
    return manifest


def _cut_track(
    settings: Face, known: dict[str, File], name: str, names: list[str], gold: ndarray, folder: Path
) -> list[dict[str, Any]]:
    """Writes the crops of a track's person; returns their rows of the manifest."""
    stem = affwild2.video_of(name, known)
    uri = known[stem].uri
    info = video.probe(uri, known[stem].path)
    faces_of = Finder(settings, Crop(settings.crop_px))
    found = []
    for frame, picture in video.decode(uri, info, 0, len(gold)):
        if frame % FRAME_STEP == 0:
            found += faces_of([frame], [picture])[0]
    faces = Faces(
        frame=np.array([row.frame for row in found]),
        time_s=info.time_s[[row.frame for row in found]],
        box=np.stack([row.box for row in found]),
        score=np.array([row.score for row in found]),
        colors=np.stack([row.colors for row in found]),
        shape=np.stack([row.mesh.shape if row.mesh else np.full(len(FIRST), np.nan) for row in found]),
        thumbnail=np.stack([row.thumbnail for row in found]),
    )
    person = person_named(persons(faces, Tracking()), faces, affwild2.person_of(name, stem, names, known))
    assert person is not None
    (folder / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for row in (found[i] for i in person.rows):
        valence, arousal = (float(value) for value in gold[row.frame])
        if np.isnan(valence):
            continue
        path = f"{name}/{row.frame:05d}.png"
        Image.fromarray(row.crop).save(folder / path)
        labels = {"expression": demo.expression_of(valence, arousal), "valence": valence, "arousal": arousal}
        rows.append({"path": path, "dataset": "demo", "person": name, **labels})
    return rows
