"""Makes what the demo needs where a job asks for the demo at its usual place."""

import json
from collections.abc import Sequence
from pathlib import Path

from affect.progress import say
from affect.settings import recipes
from affect.settings.recipes import CAVEAT, Places
from affect.settings.run import Run


def prepare_default(run: Run, videos: Sequence[str]) -> Places | None:
    """Make what the demo needs at its usual place, if that is what a job was asked for.

    Args:
        run: the job's run.
        videos: the job's videos.

    Returns:
        The demo's places; None if the job is about something else.
    """
    places = recipes.demo_places()
    if run.name != "demo" or list(videos) != [places.videos]:
        return None
    if not _is_there(run, places):
        from affect.pipeline.demo_assets import prepare

        prepare(run, places)
    say(CAVEAT)
    return places


def _is_there(run: Run, places: Places) -> bool:
    """Whether corpus and checkpoints have been made."""
    marker = Path(places.labels).with_name("corpus.json")
    made = marker.exists() and json.loads(marker.read_text()).get("generator_version") == recipes.GENERATOR_VERSION
    return made and all(Path(part.weights).is_dir() for part in (run.face, run.behavior, run.wavlm))
