"""Makes the demo's corpus and checkpoints for a job on the demo."""

import json
from collections.abc import Sequence
from pathlib import Path

from affect.progress import say
from affect.settings import recipes
from affect.settings.recipes import CAVEAT, Places
from affect.settings.run import Run


def prepare_default(run: Run, videos: Sequence[str]) -> Places | None:
    """Makes the demo's missing inputs if a job is the demo on its default videos.

    Args:
        run: the job's run.
        videos: the job's videos.

    Returns:
        The demo's places; None for other jobs.
    """
    places = recipes.demo_places()
    if run.name != "demo" or list(videos) != [places.videos]:
        return None
    if not _exists(run, places):
        from affect.pipeline.demo_assets import prepare

        prepare(run, places)
    say(CAVEAT)
    return places


def _exists(run: Run, places: Places) -> bool:
    """Whether this version's corpus and the checkpoints exist."""
    marker = Path(places.labels).with_name("corpus.json")
    made = marker.exists() and json.loads(marker.read_text()).get("generator_version") == recipes.GENERATOR_VERSION
    return made and all(Path(part.weights).is_dir() for part in (run.face, run.behavior, run.wavlm))
