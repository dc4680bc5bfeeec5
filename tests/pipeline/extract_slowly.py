"""Runs the extraction job with at least a second per clip: time to add nodes."""

import time
from typing import Any

from affect.pipeline import graph
from affect.pipeline.extract_actor import ExtractActor

AT_LEAST_S = 1.0


class Slow(ExtractActor):
    """A stage that waits until a second has passed."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Processes a clip."""
        end = time.monotonic() + AT_LEAST_S
        done = super().__call__(batch)
        time.sleep(max(0.0, end - time.monotonic()))
        return done


if __name__ == "__main__":
    from jobs.extract import main
    from tests.pipeline import extract_slowly

    graph.ExtractActor = extract_slowly.Slow  # type: ignore[misc] # under the name of its module, which actors import
    main()
