"""How fast work went, kept beside its results, so that plans can be made of it.

STORE/_speed/<what>-<address>.json, RUNS/_speed/...      added up over runs; nothing that is computed depends on it
"""

import json
from dataclasses import asdict, dataclass, replace

from affect.settings.address import address
from affect.settings.run import Run
from affect.storage import files


@dataclass(frozen=True)
class Speed:
    """Work that was measured.

    Args:
        amount: what was done: seconds of video, or frames times epochs.
        work_s: seconds that it took, of all actors together; of a training, from its start to its end.
        start_s: mean time until work began and after it ended.
        runs: how many runs this is of.
    """

    amount: float
    work_s: float
    start_s: float
    runs: int


def measured(root: str, what: str, address: str) -> Speed | None:
    """What is known; None before the first run."""
    path = _path(root, what, address)
    try:
        return Speed(**json.loads(files.read(path)))
    except (FileNotFoundError, ValueError, TypeError):
        return None  # a note that cannot be read is measured anew


def note(root: str, what: str, address: str, amount: float, work_s: float, start_s: float) -> None:
    """Add a run to what is known."""
    if amount <= 0:
        return
    known = measured(root, what, address) or Speed(0.0, 0.0, 0.0, 0)
    runs = known.runs + 1
    start = (known.start_s * known.runs + start_s) / runs
    added = Speed(known.amount + amount, known.work_s + work_s, start, runs)
    files.write(_path(root, what, address), json.dumps(asdict(added)).encode())


def speed_of(run: Run, system: str) -> tuple[str, str]:
    """What a training's speed is kept under: the seed changes nothing of it."""
    settings = run.settings_of(system)
    plain = replace(settings, fit=replace(settings.fit, seed=0))
    return f"train-{system}", address(plain, run.workers.num_workers, run.workers.use_gpu)


def _path(root: str, what: str, address: str) -> str:
    return files.join(root, "_speed", f"{what}-{address}.json")
