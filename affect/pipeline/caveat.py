"""Whether a job is about the demo: what has to be said then, and made first."""

from collections.abc import Sequence

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
    from affect.pipeline.demo import prepare  # seconds of imports that no other job needs

    prepare(run, places)
    say(CAVEAT)
    return places
