"""Speed and memory of extraction: the frame encoder, the face stage, the whole pipeline."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .demo import copy_videos, prepared_demo
from .measure import rate, rates, resident_mib, say_ratio


def true_size_encoder(folder: Path) -> Path:
    """Saves a GRADA checkpoint of the true size with random weights."""
    from affect.face import grada
    from affect.settings.encoder import GradaShape

    torch.manual_seed(0)
    grada.save(grada.Grada(GradaShape()).eval(), folder)
    return folder


def encoder() -> None:
    """The frame encoder at its true size, random weights."""
    from affect.face.grada import Encoder, load
    from affect.settings.extraction import Face

    cuda = torch.cuda.is_available()
    device, count = ("cuda", 4096) if cuda else ("cpu", 32)
    crops = np.random.default_rng(0).integers(0, 256, (count, 240, 240, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = true_size_encoder(Path(name))
        shipped = Encoder(folder, Face())
        eager = load(folder).to(device)
    pixels = torch.rand(32, 3, 240, 240, device=device)

    def plain() -> int:
        with torch.no_grad():
            for _ in range(0, count, 32):
                eager(pixels)
        return count

    def ours() -> int:
        shipped(crops)
        return count

    say_ratio(f"encoder on {device}", "crops", rate(ours), "eager float32 in batches of 32", rate(plain))


def preparation() -> None:
    """Face crops of 720p pictures, from boxes to normalised batches."""
    from PIL import Image

    from affect.face.crop import IMAGENET_MEAN, IMAGENET_STD, letterbox, normalise
    from affect.settings.extraction import Face

    mean, std = (np.array(values, dtype=np.float32) for values in (IMAGENET_MEAN, IMAGENET_STD))
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (64, 45, 80, 3), dtype=np.uint8)
    pictures = [np.repeat(np.repeat(picture, 16, axis=0), 16, axis=1) for picture in coarse]
    boxes = [np.array([[0.3, 0.2, 0.3 + w, 0.2 + h]]) for w, h in rng.uniform((0.15, 0.3), (0.3, 0.6), (64, 2))]
    size = Face().batch_size("cpu")

    def ours() -> int:
        for i in range(0, len(pictures), size):
            pairs = zip(pictures[i : i + size], boxes[i : i + size], strict=True)
            normalise(torch.from_numpy(np.concatenate([letterbox(p, b, 240) for p, b in pairs])))
        return len(pictures)

    def one(picture: np.ndarray, box: np.ndarray, path: Path) -> torch.Tensor:
        Image.fromarray(picture).crop(tuple((box[0] * [1280, 720, 1280, 720]).astype(int))).save(path, quality=95)
        face = Image.open(path).convert("RGB")
        scale = 240 / max(face.size)
        face = face.resize((round(face.width * scale), round(face.height * scale)), Image.Resampling.BILINEAR)
        square = Image.new("RGB", (240, 240))
        square.paste(face, ((240 - face.width) // 2, (240 - face.height) // 2))
        values = (np.asarray(square, dtype=np.float32) / 255 - mean) / std
        return torch.from_numpy(values.transpose(2, 0, 1).copy())

    with tempfile.TemporaryDirectory() as folder:

        def loop() -> int:
            paths = [Path(folder) / f"{i}.jpg" for i in range(len(pictures))]
            made = [one(*each) for each in zip(pictures, boxes, paths, strict=True)]
            for i in range(0, len(made), size):
                torch.stack(made[i : i + size])
            return len(made)

        say_ratio("preparation", "faces", rate(ours), "PIL and JPEG", rate(loop))


def face() -> None:
    """The face stage on a demo video, with an encoder of the true size."""
    from affect.corpus import video
    from affect.face.clip import FaceClip, Finder
    from affect.face.crop import letterbox
    from affect.settings.extraction import Face

    clip = _demo_clip()
    with tempfile.TemporaryDirectory() as name:
        stage = FaceClip(Face(weights=str(true_size_encoder(Path(name)))))
    finder, encode = stage._find, stage._encode
    assert isinstance(finder, Finder) and encode
    pictures = [picture for _, picture in video.decode(clip.uri, clip.probe, *clip.frames)]
    found = finder(range(len(pictures)), pictures)[0]
    crops = np.concatenate([letterbox(pictures[row.frame], row.box[None], 240) for row in found])

    def models() -> int:
        finder._detect(pictures)
        for crop in crops:
            finder._mesh(crop)
        encode(crops)
        return len(pictures)

    def whole() -> int:
        stage(clip)
        return len(pictures)

    say_ratio("face stage", "frames", rate(whole), "its models alone", rate(models))


def blendshapes() -> None:
    """The face stage on a demo video: without a network of its own, and with GRADA at its true size."""
    from affect.face.clip import FaceClip
    from affect.settings.extraction import Face

    clip = _demo_clip()
    with tempfile.TemporaryDirectory() as name:
        grada = FaceClip(Face(weights=str(true_size_encoder(Path(name)))))
    mesh = FaceClip(Face(encoder="blendshapes", weights=""))
    frames = clip.frames[1] - clip.frames[0]

    def of(stage: FaceClip) -> Callable[[], int]:
        return lambda: stage(clip) and frames

    ours, theirs = rates([of(mesh), of(grada)])
    say_ratio("face stage, blendshapes", "frames", ours, "GRADA", theirs)


def onnx() -> None:
    """A random network of EfficientNet-B0's size in onnxruntime as shipped, and in torch eager, by batch."""
    import dataclasses
    import json
    import warnings

    from torchvision.models import efficientnet_b0

    from affect.face.onnx_encoder import NETWORKS, OnnxEncoder
    from affect.settings.extraction import Face

    torch.manual_seed(0)
    network = efficientnet_b0(num_classes=10).eval().to(device := "cuda" if torch.cuda.is_available() else "cpu")
    crops = np.random.default_rng(0).integers(0, 256, (32, 224, 224, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "net.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            names: dict[str, Any] = {"input_names": ["input"], "output_names": ["output"], "opset_version": 11}
            axes = {"input": {0: "batch"}, "output": {0: "batch"}}
            sample = (torch.zeros(2, 3, 224, 224, device=device),)
            torch.onnx.export(network, sample, str(path), **names, dynamic_axes=axes, dynamo=False)
        path.with_suffix(".json").write_text(json.dumps(dataclasses.asdict(NETWORKS["hsemotion"])))
        for size in (1, 4, 8, 16, 32):
            encoder = OnnxEncoder(Face(encoder="onnx", weights=str(path), micro_batch=size))
            ours, theirs = rates([partial(_encoded, encoder, crops), partial(_eager, network, crops, size)])
            say_ratio(f"onnx on {device}, batches of {size}", "crops", ours, "torch eager", theirs)


def _encoded(encoder: Any, crops: np.ndarray) -> int:  # noqa: ANN401 -- an encoder
    encoder(crops)
    return len(crops)


def _eager(network: torch.nn.Module, crops: np.ndarray, size: int) -> int:
    """Normalised crops through a network in float32."""
    from affect.face.crop import IMAGENET_MEAN, IMAGENET_STD

    device = next(network.parameters()).device
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        for start in range(0, len(crops), size):
            pixels = torch.from_numpy(crops[start : start + size]).to(device).permute(0, 3, 1, 2)
            network((pixels / 255 - mean) / std).cpu()
    return len(crops)


def memory(minutes: int = 30, fps: int = 5) -> None:
    """Resident memory of the face stage along one long video.

    Args:
        minutes: length of the video.
        fps: its frames per second.
    """
    from affect.corpus import video
    from affect.corpus.clip import Clip
    from affect.corpus.film import TICKS, write_film
    from affect.face import grada
    from affect.face.clip import FaceClip
    from affect.settings.extraction import Face, Grid

    short = str(_demo_video())
    source = video.probe(short, Path(short).name)
    pictures = [picture for _, picture in video.decode(short, source, 0, 60)]
    frames = np.arange(minutes * 60 * fps)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "long.mp4"
        write_film(path, (pictures[i % 60] for i in frames), frames * (TICKS // fps), None, fps)
        grada.save(grada.load(Path(_demo_weights())), name)
        info = video.probe(str(path), path.name)
        stage = FaceClip(Face(weights=name, crop_px=96))
        for minute in range(minutes):
            stage(Clip(str(path), info, minute * 60.0, minute * 60.0 + 60.0, Grid()))
            if minute + 1 in (1, 2, 5, 10, 20, minutes):
                print(f"memory: {resident_mib():.0f} MiB resident after {minute + 1} min of video", flush=True)


def _demo_weights() -> str:
    from affect.settings import recipes

    return recipes.demo().face.weights


def _demo_clip() -> Any:  # noqa: ANN401 -- affect's own class, imported late
    """The first five seconds of a demo video."""
    from affect.corpus import video
    from affect.corpus.clip import Clip
    from affect.settings.extraction import Grid

    uri = str(_demo_video())
    return Clip(uri, video.probe(uri, Path(uri).name), 0.0, 5.0, Grid())


def _demo_video() -> Path:
    """The first video of the demo; the demo is generated if it is missing."""
    from affect.settings import recipes

    places = recipes.demo_places()
    if not Path(places.videos).is_dir() or not Path(_demo_weights()).is_dir():
        prepared_demo()
    return min(Path(places.videos).iterdir())


def pipeline(copies: int = 2) -> None:
    """Copies of the demo's labelled videos through all three stages: Ray pipeline against plain loop.

    Args:
        copies: of each video.
    """
    from affect.corpus.videos import find
    from affect.modalities import MODALITIES
    from affect.pipeline.extract import extract
    from affect.pipeline.job import start_ray
    from affect.pipeline.probe import probe_videos
    from affect.plan.clips import load_probe, make_clip, num_clips
    from affect.storage.extracted import discard_part
    from affect.storage.store import Store

    cores = start_ray().num_cpus
    run, places = prepared_demo()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        copy_videos(Path(places.videos).iterdir(), root / "videos", copies)
        store = Store(str(root / "store"))
        videos = probe_videos(find(str(root / "videos")), store, {})
        frames = sum(video.head.num_frames for video in videos if video.head)
        start = time.perf_counter()
        extract(run, str(root / "videos"), store)
        through = frames / (time.perf_counter() - start)  # start of the actors included
        torch.set_num_threads(int(cores))
        extractors = {name: modality.extractor(run, "cpu") for name, modality in MODALITIES.items()}
        plain, start = Store(str(root / "plain")), time.perf_counter()
        for video in videos:
            assert video.head is not None
            info = load_probe(store, video.probe_key)
            for number in range(num_clips(video.head.last_s, run)):
                for modality in MODALITIES:
                    clip = make_clip(video.uri, video.prompts, info, number, run)
                    made = extractors[modality](clip, None, discard_part)
                    plain.put(f"{modality}/{video.stem}/{number:05d}.parquet", made)
        loop = frames / (time.perf_counter() - start)  # models loaded beforehand
    say_ratio(f"pipeline on {cores:g} cores", "frames", through, "plain loop", loop)


def protections() -> None:
    """Share of an extraction's time that the store, attempt markers, time limits, checksums and fsync take."""
    import faulthandler

    import ray

    from affect.corpus.videos import find
    from affect.pipeline.extract import clip_row
    from affect.pipeline.extract_actor import ExtractActor, Tally
    from affect.pipeline.job import start_ray
    from affect.pipeline.probe import probe_videos
    from affect.plan.addresses import wanted_features
    from affect.plan.clips import missing_units
    from affect.settings import recipes
    from affect.storage.attempts import Attempts
    from affect.storage.store import Store

    home, run = _demo_video().parent, recipes.demo()
    spent: dict[str, float] = {}

    def timed(owner: Any, name: str) -> None:  # noqa: ANN401 -- a class or a module
        work = getattr(owner, name)

        def wrapped(*args: Any, **settings: Any) -> Any:  # noqa: ANN401 -- as the work's
            start = time.perf_counter()
            try:
                return work(*args, **settings)
            finally:
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - start

        setattr(owner, name, wrapped)

    start_ray()
    ray.remote(num_cpus=0)(Tally).options(name="tally", lifetime="detached").remote()
    with tempfile.TemporaryDirectory(dir=".") as folder:  # the disk, which /tmp need not be
        store, where = Store(folder), wanted_features(run, [], []).where
        videos = probe_videos(find(f"{home}/*1.mp4"), store, {})
        units, _ = missing_units(videos, run, where, store, retry_failed=False)
        stages = {kind: ExtractActor(kind, run, store, where, Attempts(store, "run"), "tally") for kind in where}
        for name in ("has", "put"):
            timed(Store, name)
        for name in ("begin", "end"):
            timed(Attempts, name)
        for name in ("dump_traceback_later", "cancel_dump_traceback_later"):
            timed(faulthandler, name)
        took: dict[str, float] = {}
        for kind, stage in stages.items():
            start = time.perf_counter()
            for unit in units:
                row = clip_row(videos[unit.video], unit, run) | {"again": False}
                assert stage({name: [value] for name, value in row.items()})[f"{kind}_status"] != ["error"]
            took[kind] = time.perf_counter() - start
    total, parts = sum(took.values()), ", ".join(f"{name} {1000 * s:.0f}" for name, s in spent.items())
    print(f"extraction: {total:.1f} s ({', '.join(f'{kind} {s:.1f}' for kind, s in took.items())})")
    print(f"protections: {sum(spent.values()):.2f} s, {100 * sum(spent.values()) / total:.1f} %; in ms: {parts}")
