"""Extracts face, behaviour and audio features of every video of a folder or bucket.

    python jobs/extract.py RECIPE --videos URI --store URI [--labels DIR]

Existing results are skipped.
Exit code 0: everything succeeded; 3: finished, some videos or clips failed; 1: no usable video, or an error.
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from affect.pipeline import job
from affect.settings.run import Run


@dataclass(frozen=True, kw_only=True)
class Extract:
    """Extract face, behaviour and audio features of every video of a folder or bucket into a feature store."""

    run: Annotated[Run, tyro.conf.arg(name="")]
    """Settings of the recipe."""
    videos: tuple[str, ...]
    """Folders, bucket prefixes, patterns such as 'talks/*.mp4', or files."""
    store: str
    """Feature store: a folder or bucket prefix."""
    labels: str | None = None
    """Annotation folder; where its file names tell of two people in a video, behaviour is extracted for each."""
    retry_failed: bool = False
    """Try failed videos and clips again."""
    describe: bool = False
    """Also write a description of every segment by the vision-language model to STORE/description; slow."""
    shard: str = "1/1"
    """Do part K/N of the videos only, by the hash of their paths."""
    plan: bool = False
    """Print the work to do, its estimated time and possible problems, and stop."""
    status: bool = False
    """Print what the store holds of these videos, what failed and why, and what is missing, and stop."""
    watch: bool = False
    """Like --status, every 30 s until done."""
    verify: bool = False
    """List damaged objects of the store; delete them and extract again."""
    only: str | None = None
    """VIDEO or VIDEO:CLIP, without suffix: process it in this process, with full tracebacks; write nothing."""
    save_overlay: str | None = None
    """Folder for films with every person's box, name and mouth, and a table of them, to check tracking."""

    @property
    def here(self) -> bool:
        """Whether the job runs in this process, without Ray."""
        return self.status or self.watch or self.verify or self.only is not None


def work(args: Extract) -> int:
    """Extracts, prints a summary and returns the exit code."""
    from affect.corpus.labels import annotated_tracks
    from affect.corpus.videos import Shard
    from affect.pipeline.demo import prepare_default
    from affect.pipeline.extract import extract
    from affect.storage.store import Store

    labels = args.labels
    if places := prepare_default(args.run, args.videos):
        labels = places.labels
    tracks = annotated_tracks(labels, args.run.labels) if labels else []
    store = Store(args.store)
    again, describe, shard = args.retry_failed, args.describe, Shard.parse(args.shard)
    if args.status or args.watch:
        from affect.console.status import status

        return status(args.run, args.videos, store, tracks, describe=describe, shard=shard, watch=args.watch)
    if args.verify:
        from affect.console.verify import verify

        return verify(store)
    if args.only:
        from affect.console.status import replay

        return replay(args.run, args.videos, args.only, tracks, describe=describe)
    if args.plan:
        from affect.pipeline import forecast

        where = (args.run, args.videos, store, tracks)
        return forecast.extraction(*where, retry_failed=again, describe=describe, shard=shard)[0].show()
    summary = extract(args.run, args.videos, store, tracks=tracks, retry_failed=again, describe=describe, shard=shard)
    summary.show(store.uri)
    if args.save_overlay:
        from affect.pipeline.overlay import overlay

        overlay(args.run, summary.videos, store, args.save_overlay)
    return summary.exit_code


main = job.entry(Extract, work, ("store", "save_overlay"), needs=("affect.pipeline.extract",))

if __name__ == "__main__":
    main()
