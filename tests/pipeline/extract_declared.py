"""Runs the extraction job on GPUs that nodes only declare, with sound as the slowest stage."""

from typing import Any

from affect.settings.run import Run
from tests.pipeline import extract_slowly
from tests.pipeline.extract_slowly import Slow

SECONDS = {"face": 0.3, "behavior": 1.0, "audio": 1.5}
"""Least seconds per clip of each stage."""


class Declared(Slow):
    """A stage that holds its share of a GPU and computes on the CPU."""

    def __init__(self, kind: str, run: Run, *given: Any) -> None:
        """Loads the model."""
        from affect.pipeline import extract_actor

        extract_actor.device = lambda: "cpu"
        extract_slowly.AT_LEAST_S = SECONDS[kind]
        super().__init__(kind, run, *given)


if __name__ == "__main__":
    from affect.pipeline import graph
    from jobs.extract import main
    from tests.pipeline import extract_declared

    graph.ExtractActor = extract_declared.Declared  # type: ignore[misc] # under its module's name, which actors import
    main()
