"""The demo's corpus as the material of benchmarks."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from affect.settings import recipes
from affect.settings.recipes import Places
from affect.settings.run import Run


def prepared_demo() -> tuple[Run, Places]:
    """The demo's recipe and places; starts Ray, and generates videos and checkpoints that are missing."""
    from affect.pipeline.demo_assets import prepare
    from affect.pipeline.job import start_ray

    start_ray()
    run, places = recipes.demo(), recipes.demo_places()
    prepare(run, places)
    return run, places


def copy_videos(videos: Iterable[Path], folder: Path, copies: int) -> Path:
    """Copies videos several times into a new folder, each under a name of its own."""
    folder.mkdir()
    for path in videos:
        for number in range(copies):
            shutil.copy(path, folder / f"{path.stem}-{number}{path.suffix}")
    return folder
