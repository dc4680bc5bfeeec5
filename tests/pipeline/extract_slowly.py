"""The extraction job, whose actors take at least a second over each clip: time for nodes to come and go."""

import time
from typing import Any

from affect.pipeline import graph
from affect.pipeline.extract_actor import ExtractActor

AT_LEAST_S = 1.0


class Slow(ExtractActor):
    """Waits out the second."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do one clip."""
        end = time.monotonic() + AT_LEAST_S
        done = super().__call__(batch)
        time.sleep(max(0.0, end - time.monotonic()))
        return done


if __name__ == "__main__":
    from jobs.extract import main
    from tests.pipeline import extract_slowly

    graph.ExtractActor = extract_slowly.Slow  # type: ignore[misc] # by its module's name, which actors import
    main()
