"""What the demo needs before it can start: its corpus, and checkpoints that the real code loads."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy import ndarray

from affect import learning, tiny, weights
from affect.config import Face, Fit, Loss, Run
from affect.corpus import affwild2, demo, video
from affect.face import grada
from affect.face.detect import Landmarker
from affect.face.tracks import Faces, choose, persons
from affect.pipeline.progress import say
from affect.recipes import Places
from affect.tasks import Crops, GradaTask

ENCODER = grada.Shape(width=0.25, depth=0.4, embedding=64)
"""A narrow EfficientNet of GRADA's shape; a random one gives a constant in eval mode, so it has to be trained."""
ENCODER_FIT = Fit(
    learning_rate=2e-3,
    batch_size=32,
    max_epochs=6,
    stop_patience=6,
    loss=Loss(ccc_over="batch", error_weight=1.0),
)
FRAME_STEP = 3
"""Every third frame is enough for the encoder."""


def prepare(run: Run, places: Places, size: demo.Size = "demo") -> None:
    """Make the corpus and the checkpoints that are missing.

    Args:
        run: the demo's run: where its checkpoints have to be.
        places: where its corpus has to be.
        size: of the corpus.
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
        part = folder.with_name(f"{folder.name}.part")
        _train_encoder(run.face, places, part)
        part.rename(folder)


def _on_ray(function: Callable[[Any], int], items: Iterable[Any]) -> list[int]:
    """Apply a function on the cluster, results in order."""
    remote: Any = ray.remote(num_cpus=1)(_apply)
    return ray.get([remote.remote(function, item) for item in items])


def _apply(function: Callable[[Any], int], item: Any) -> int:  # noqa: ANN401 -- whatever the function takes
    return function(item)


def _train_encoder(settings: Face, places: Places, folder: Path) -> None:
    splits = affwild2.read_splits(places.labels)
    names = [name for split in splits.values() for name in split]
    names_by_split = {split: list(tracks) for split, tracks in splits.items()}
    videos = affwild2.list_videos(places.videos)
    remote: Any = ray.remote(num_cpus=1)(_crops)
    jobs = {
        split: [remote.remote(settings, places.videos, videos, name, names, splits[split][name]) for name in tracks]
        for split, tracks in names_by_split.items()
    }
    train, development = (ray.get(jobs[split]) for split in ("train", "development"))
    fitted = learning.fit(GradaTask(ENCODER, ENCODER_FIT), train, development, device=torch.device("cpu"))
    valence, arousal, _ = fitted.best.ccc
    say(f"demo: frame encoder, development CCC {valence:.3f} valence, {arousal:.3f} arousal")
    assert isinstance(fitted.model, grada.Grada)
    grada.save(fitted.model, folder)


def _crops(settings: Face, root: str, videos: dict[str, str], name: str, names: list[str], gold: ndarray) -> Crops:
    """Crops of a track's person, found by position alone: the encoder that appearance would need is yet to be made."""
    stem = affwild2.video_of(name, videos)
    uri = f"{root}/{videos[stem]}"
    info = video.probe(uri, videos[stem])
    frames, boxes, pictures = [], [], []
    detect = Landmarker(weights.file(settings.landmarker), settings)
    for frame, picture in video.decode(uri, info, 0, len(gold)):
        if frame % FRAME_STEP:
            continue
        for face in detect(picture):
            frames.append(frame)
            boxes.append(face.box)
            pictures.append(grada.letterbox(picture, face.box, settings.crop_px))
    faces = Faces(np.array(frames), info.time_s[frames], np.array(boxes), np.ones((len(frames), 1)))
    rows = choose(persons(faces), faces, affwild2.person_of(name, stem, names, videos))
    return Crops(name, np.stack([pictures[row] for row in rows]), gold[faces.frame[rows]])
