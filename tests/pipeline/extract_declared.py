"""Runs the extraction job on GPUs that nodes only declare; sound can be held back."""

import time
from pathlib import Path
from typing import Any

from affect.settings.run import Run
from affect.storage.store import Store
from tests.pipeline import extract_slowly
from tests.pipeline.extract_slowly import Slow

SECONDS = {"face": 0.3, "behavior": 1.0, "audio": 0.0}
"""Least seconds per clip of each stage."""


class Declared(Slow):
    """A stage that holds its share of a GPU and computes on the CPU.

    Sound waits while the file STORE.hold exists and as many of its clips are done as the file says.
    """

    def __init__(self, kind: str, run: Run, store: Store, *given: Any) -> None:
        """Loads the model."""
        from affect.pipeline import extract_actor

        extract_actor.device = lambda: "cpu"
        extract_slowly.AT_LEAST_S = SECONDS[kind]
        super().__init__(kind, run, store, *given)
        self._hold, self._done = Path(f"{store.uri}.hold"), store

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Works on one clip."""
        while self._kind.name == "audio" and self._held():
            time.sleep(0.2)
        return super().__call__(batch)

    def _held(self) -> bool:
        try:
            number = int(self._hold.read_text())
        except FileNotFoundError:
            return False
        return len(self._done.keys("audio")) >= number


if __name__ == "__main__":
    from affect.pipeline import graph
    from jobs.extract import main
    from tests.pipeline import extract_declared

    graph.ExtractActor = extract_declared.Declared  # type: ignore[misc] # under its module's name, which actors import
    main()
