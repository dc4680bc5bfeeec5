"""A corpus of Aff-Wild2's size with random features: 356 + 76 tracks, 2.07 M frames, one person each."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray
import torch

from affect.corpus.clip import Clip
from affect.corpus.probe import Probe
from affect.fusion.task import DcmmoeTask
from affect.learning.batches import load_here
from affect.learning.sampling import share_of, shuffled_batches
from affect.modalities import MODALITIES
from affect.pipeline import assemble as assembling
from affect.pipeline.assemble import assemble
from affect.plan.clips import Video, keys_of, make_clip, num_clips, probe_table
from affect.settings.run import Run
from affect.storage import schema
from affect.storage.columns import list_column
from affect.storage.extracted import Extracted
from affect.storage.rows import raise_open_file_limit
from affect.storage.state import ProbeSummary
from affect.storage.store import Store
from affect.tracks.synthetic import curve
from affect.tracks.tables import TrackRef, load_track
from affect.trained.embedded import embedded_key, with_embeddings

from .measure import resident_mib

SIZES = {"train": (356, 1_682_057), "development": (76, 383_814)}
FPS = 30.0
PATCHES = 8
EMBEDDING, STATE, MODEL, COLORS = 256, 2560, 256, 294
RUN = Run(name="scale")
WHERE: dict[str, str] = {m: f"random-{m}" for m in MODALITIES}
EMBEDDED = {m: f"random-{m}" for m in MODALITIES}


@dataclass(frozen=True)
class Part:
    """A video with its annotated track."""

    split: str
    name: str
    num_frames: int
    seed: int


def parts() -> list[Part]:
    """Videos whose lengths add up to the frames of the corpus, a few long and many short."""
    made = []
    for split, (count, frames) in SIZES.items():
        share = np.random.default_rng(len(split)).lognormal(0, 0.9, count)
        lengths = np.maximum(200, (share / share.sum() * frames).astype(int))
        lengths[lengths.argmax()] += frames - lengths.sum()
        made += [Part(split, f"{split}{i:03d}", int(n), 1000 * len(split) + i) for i, n in enumerate(lengths)]
    return made


def video_of(part: Part) -> tuple[Probe, Video]:
    """Probe and entry of a video that does not exist."""
    time_s = np.arange(part.num_frames) / FPS
    head = ProbeSummary(
        f"{part.seed:012d}", f"{part.seed:012d}", part.num_frames, float(time_s[-1]), part.num_frames / FPS
    )
    probe = Probe(part.name + ".mp4", 1, head.fingerprint, head.content, 640, 360, 0, True, 0.0, time_s)
    return probe, Video(part.name, f"/nowhere/{probe.path}", probe.path, 1, f"videos/{part.name}.parquet", head, "")


def write_features(part: Part, store: Store) -> int:
    """Writes the objects of an extraction: every clip of every modality; the number of frames."""
    rng, (probe, entry) = np.random.default_rng(part.seed), video_of(part)
    store.put(entry.probe_key, Extracted(probe_table(probe)))
    keys = {m: keys_of(entry, RUN, WHERE, m) for m in MODALITIES}
    look = rng.random(COLORS) * 0.1
    for number in range(num_clips(float(probe.time_s[-1]), RUN)):
        clip = make_clip(entry.uri, entry.prompts, probe, number, RUN)
        store.put(keys["face"][number], Extracted(_faces(clip, look, rng)))
        store.put(keys["behavior"][number], Extracted(_behavior(clip, rng)))
        store.put(keys["audio"][number], Extracted(_audio(clip, rng)))
    return part.num_frames


def _faces(clip: Clip, look: np.ndarray, rng: np.random.Generator) -> pa.Table:
    first, end = clip.frames
    num = end - first
    box = np.array([0.3, 0.2, 0.5, 0.6]) + 0.01 * np.sin(np.arange(num) / 30)[:, None]
    floats = {"box": box, "embedding": rng.normal(size=(num, EMBEDDING)), "expression": rng.normal(size=(num, 8))}
    floats |= {"blendshapes": rng.random((num, 52)), "shape": rng.normal(0, 0.01, (num, _shape_width()))}
    columns = {name: list_column(values.astype(np.float32), pa.float32()) for name, values in floats.items()}
    columns |= {"colors": list_column((look + rng.random((num, len(look))) * 0.01).astype(np.float16), pa.float16())}
    columns |= {"thumbnail": list_column(np.full((num, 192), 90, dtype=np.uint8), pa.uint8())}
    lip = rng.random(num) * 0.01
    plain = {"frame": np.arange(first, end), "time_s": clip.probe.time_s[first:end], "face": np.zeros(num, dtype=int)}
    plain |= {"score": np.full(num, 0.9), "valence": lip, "arousal": lip, "lip_area": lip}
    return pa.table({**plain, **columns}).select(schema.FACE.names).cast(schema.FACE)


def _shape_width() -> int:
    from affect.face.mesh import FIRST

    return len(FIRST)


def _behavior(clip: Clip, rng: np.random.Generator) -> pa.Table:
    number, start_s, end_s = np.array(clip.segments).reshape(-1, 3).T
    states = {n: rng.standard_normal((len(number), STATE), dtype=np.float32) for n in ("multimodal", "vision")}
    columns = {name: list_column(values.astype(np.float16), pa.float16()) for name, values in states.items()}
    halves = rng.standard_normal((PATCHES * len(number), STATE), dtype=np.float32)
    offsets = np.arange(0, len(halves) + 1, PATCHES, dtype=np.int32)
    columns["patches"] = pa.ListArray.from_arrays(offsets, list_column(halves, pa.float16()))
    columns["shown_s"] = list_column(np.linspace(start_s, end_s - 1 / FPS, 2 * PATCHES, axis=1), pa.float64())
    plain = {"segment": number, "prompt": ["neutral"] * len(number), "start_s": start_s, "end_s": end_s}
    plain["micro_batch"] = np.full(len(number), 4)
    return pa.table({**plain, **columns}).select(schema.BEHAVIOR.names).cast(schema.BEHAVIOR)


def _audio(clip: Clip, rng: np.random.Generator) -> pa.Table:
    number, start_s, end_s = np.array(clip.segments).reshape(-1, 3).T
    waves = [
        rng.integers(-3000, 3000, round((b - a) * 16_000), dtype=np.int16) for a, b in zip(start_s, end_s, strict=True)
    ]
    return pa.table({"segment": number, "start_s": start_s, "end_s": end_s, "waveform": waves}).cast(schema.AUDIO)


def write_embedded(ref: TrackRef, store: Store) -> int:
    """Writes random embeddings and predictions of three unimodal models for a track; the number of frames."""
    track = load_track(store, ref, ())
    rng, num = np.random.default_rng(len(ref.name)), track.num_frames
    for modality in MODALITIES:
        columns = {
            "frame": np.arange(num),
            "embedding": list_column(rng.standard_normal((num, MODEL), dtype=np.float32), pa.float32()),
            "valence": rng.random(num),
            "arousal": rng.random(num),
            "valid": rng.random(num) < 0.9,
        }
        table = pa.table(columns).cast(schema.EMBEDDED_FRAMES)
        store.put(embedded_key(EMBEDDED[modality], modality, ref), Extracted(table))
    num_blocks = 4 * len(track.segments.ranges)
    blocks = {
        "segment": np.repeat(np.arange(num_blocks // 4), 4),
        "block": np.tile(np.arange(4), num_blocks // 4),
        "embedding": list_column(rng.standard_normal((num_blocks, MODEL), dtype=np.float32), pa.float32()),
        "valence": rng.random(num_blocks),
        "arousal": rng.random(num_blocks),
        "valid": rng.random(num_blocks) < 0.5,
    }
    table = pa.table(blocks).cast(schema.EMBEDDED_BLOCKS)
    store.put(embedded_key(EMBEDDED["audio"], "audio", ref, "blocks"), Extracted(table))
    return num


def _gold(part: Part) -> np.ndarray:
    return np.clip(curve(part.num_frames, FPS, np.random.default_rng(part.seed)), -1, 1)


def _seconds(start: float) -> float:
    return time.perf_counter() - start


def measure(folder: str, step_seconds: Callable[[], float]) -> None:
    """Writes the features, then measures assembly and an epoch's data.

    Args:
        folder: gets about 25 GiB.
        step_seconds: measures a training step, in seconds.
    """
    assembling.feature_addresses = lambda run: WHERE  # nothing here has weights
    store, corpus = Store(folder), parts()
    frames = sum(part.num_frames for part in corpus)
    start = time.perf_counter()
    features: object = ray.remote(num_cpus=1)(write_features)
    ray.get([features.remote(part, store) for part in corpus])  # type: ignore[attr-defined]
    print(f"corpus: {len(corpus)} tracks, {frames:,} frames, features written in {_seconds(start):.0f} s", flush=True)
    labels = {s: {p.name: _gold(p) for p in corpus if p.split == s} for s in SIZES}
    start = time.perf_counter()
    refs = assemble(RUN, [video_of(part)[1] for part in corpus], labels, store)  # type: ignore[arg-type]
    print(f"corpus: assembled in {_seconds(start):.0f} s", flush=True)
    start = time.perf_counter()
    assemble(RUN, [video_of(part)[1] for part in corpus], labels, store)  # type: ignore[arg-type]
    print(f"corpus: assembled again, all tables existing, in {_seconds(start):.1f} s", flush=True)
    embedded: object = ray.remote(num_cpus=1)(write_embedded)
    ray.get([embedded.remote(ref, store) for ref in refs])  # type: ignore[attr-defined]
    _epoch([ref for ref in refs if ref.split == "train"], store, step_seconds)


def _epoch(refs: list[TrackRef], store: Store, step_seconds: Callable[[], float]) -> None:
    """Loads all training windows of an epoch in the order of training, and compares the time with that of the steps."""
    raise_open_file_limit()
    before, start = resident_mib("RssAnon"), time.perf_counter()
    tracks = [with_embeddings(load_track(store, ref, ()), ref, store, EMBEDDED) for ref in refs]
    print(f"corpus: {len(tracks)} tracks opened in {_seconds(start):.1f} s", flush=True)
    task = DcmmoeTask(RUN.dcmmoe, dict.fromkeys(MODALITIES, MODEL))
    windows: list[tuple[object, tuple[int, int]]] = [
        (t, w) for t in tracks for w in task.windows(t) if task.trains_on(t, w)
    ]
    batches = list(shuffled_batches(windows, task.settings.batch_size, torch.Generator().manual_seed(0)))
    seconds = {}
    for state in ("from a cold disk", "from memory"):
        if state == "from a cold disk":
            _forget(store)
        start = time.perf_counter()
        steps = sum(1 for _ in load_here(task, [share_of(batch, 0, 1) for batch in batches], torch.device("cpu")))
        seconds[state] = _seconds(start)
    print(
        f"corpus: memory of a worker after the epoch: {resident_mib('RssAnon'):.0f} MiB private ({before:.0f} before), "
        f"and {resident_mib('RssFile'):.0f} MiB of mapped files, shared by all workers of a node",
        flush=True,
    )
    step_s = step_seconds()
    for state, data_s in seconds.items():
        print(
            f"corpus: an epoch's {len(windows):,} windows, {steps:,} batches in {data_s:.1f} s {state}; a step takes "
            f"{step_s:.2f} s, so data takes {data_s / (steps * step_s):.2%} of an epoch's compute if nothing overlaps",
            flush=True,
        )


def _forget(store: Store) -> None:
    """Asks the operating system to drop the tables from its page cache."""
    for top, _, names in os.walk(f"{store.uri}/embedded"):
        for name in names:
            handle = os.open(os.path.join(top, name), os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
