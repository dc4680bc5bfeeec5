"""Speed as ratios, both sides in one run.

    python jobs/benchmark.py --copies 3

pipeline   frames per second through the Ray pipeline against the same model calls in a plain loop on the same cores.
"""

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from affect import recipes
from affect.config import MODALITIES, Run
from affect.pipeline import demo, plan
from affect.pipeline.extract import extract, extractor
from affect.pipeline.job import start_ray
from affect.pipeline.plan import Video
from affect.pipeline.progress import say
from affect.pipeline.store import Store


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Frames per second through the pipeline against a plain loop."""

    copies: int = 3
    """How often the demo's twelve labelled videos are extracted, under different names."""


def plain_loop(run: Run, videos: list[Video], store: Store, cores: float) -> float:
    """Seconds for every clip and modality, one after the other in this process, models loaded beforehand."""
    torch.set_num_threads(int(cores))
    extractors = {modality: extractor(modality, run) for modality in MODALITIES}
    start = time.monotonic()
    for video in videos:
        assert video.probe is not None
        for number in range(plan.num_clips(video.probe, run)):
            for modality in MODALITIES:
                made = extractors[modality](plan.make_clip(video, video.probe, number, run))
                store.put(f"{modality}/{video.stem}/{number:05d}.parquet", made)
    return time.monotonic() - start


def main(args: Benchmark) -> None:
    """Time both sides on copies of the demo's videos."""
    cores = start_ray().num_cpus
    run, places = recipes.demo(), recipes.demo_places()
    demo.prepare(run, places)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "videos").mkdir()
        for copy in range(args.copies):
            for path in sorted(Path(places.videos).iterdir()):
                shutil.copy(path, root / "videos" / f"{path.stem}-{copy}{path.suffix}")
        store = Store(str(root / "store"))
        videos = plan.probe_videos(str(root / "videos"), store, {})
        frames = sum(len(video.probe.time_s) for video in videos if video.probe)
        start = time.monotonic()
        extract(run, str(root / "videos"), store)
        pipeline = time.monotonic() - start
        loop = plain_loop(run, videos, Store(str(root / "plain")), cores)
    say(f"pipeline: {frames} frames on {cores:g} cores, {frames / pipeline:.1f} a second, start of actors included")
    say(f"plain loop: {frames / loop:.1f} a second, models loaded beforehand")
    say(f"pipeline / plain loop: {loop / pipeline:.2f}")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
