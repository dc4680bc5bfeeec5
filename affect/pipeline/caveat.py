"""Whether a job is about the demo: what has to be said then, and made first."""

import json
from collections.abc import Sequence
from pathlib import Path

from affect import recipes
from affect.config import Run
from affect.pipeline.progress import say
from affect.recipes import Places

CAVEAT = "These are the demo's models, made on generated faces and voices: they say nothing about real people."


def caveat_of(recipe: str) -> str:
    """The caveat, where a recipe is the demo's or what a search made of it; else nothing."""
    return CAVEAT if recipe.startswith("demo") else ""


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
        from affect.pipeline.demo import prepare  # seconds of imports

        prepare(run, places)
    say(CAVEAT)
    return places


def _is_there(run: Run, places: Places) -> bool:
    """Whether corpus and checkpoints have been made."""
    marker = Path(places.labels).with_name("corpus.json")
    made = marker.exists() and json.loads(marker.read_text()).get("generator_version") == recipes.GENERATOR_VERSION
    return made and all(Path(part.weights).is_dir() for part in (run.face, run.behavior, run.wavlm))
