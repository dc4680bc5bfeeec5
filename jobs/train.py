"""Train the temporal models of face, behaviour and audio and both fusions on extracted features.

python jobs/train.py RECIPE --videos URI --labels DIR --store URI --runs URI
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from affect.config import Run
from affect.corpus import affwild2
from affect.pipeline import job, plan
from affect.pipeline.assemble import assemble
from affect.pipeline.progress import say
from affect.pipeline.store import Store
from affect.pipeline.train import SYSTEMS, System, train


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train the temporal models of face, behaviour and audio, and both fusions, on extracted features."""

    run: Annotated[Run, tyro.conf.arg(name="")]
    """Every setting of the recipe."""
    videos: str
    """Folder or bucket prefix of the videos that were extracted."""
    labels: str
    """Annotation folder with Train_Set and Validation_Set."""
    store: str
    """Feature store."""
    runs: str
    """Where models go."""
    systems: tuple[System, ...] = SYSTEMS
    """What to train; a fusion needs the three modalities."""


def work(args: Train) -> int:
    """Assemble tracks, train what is missing."""
    store = Store(args.store)
    labels = affwild2.read_splits(args.labels)
    names = [name for split in labels.values() for name in split]
    prompts = plan.prompts_of(affwild2.list_videos(args.videos), names)
    videos = plan.probe_videos(args.videos, store, prompts)
    refs = assemble(args.run, videos, labels, store)
    models = train(args.run, refs, store, args.runs, args.systems)
    for model in models:
        say(f"{model.system}: development CCC {model.best['mean']:.3f} (selected on it), {model.uri}")
    return 0


if __name__ == "__main__":
    job.main(Train, work)
