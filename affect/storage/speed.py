"""Measured speed of extraction, training, prediction and reports, summed over runs, for the estimates of plans.

STORE/_speed/<what>-<address>.json, RUNS/_speed/...      no result depends on these files
"""

import json
from dataclasses import asdict, dataclass, replace

from affect.settings.address import address
from affect.settings.run import Run
from affect.storage import files


@dataclass(frozen=True)
class Speed:
    """Measured work, summed over runs.

    Args:
        amount: finished work: seconds of video, or frames times epochs.
        work_s: working time in seconds, summed over all actors; of a training, from its start to its end.
        start_s: mean seconds of a run before its work began and after it ended.
        runs: number of runs.
    """

    amount: float
    work_s: float
    start_s: float
    runs: int


def read(root: str, what: str, address: str) -> Speed | None:
    """Reads the measured speed of a kind of work; None before its first run.

    Args:
        root: the store, or the folder of trained models.
        what: kind of work, e.g. ``face`` or ``train-dcmmoe``.
        address: address of the settings that the speed depends on.
    """
    path = _path(root, what, address)
    try:
        return Speed(**json.loads(files.read(path)))
    except (FileNotFoundError, ValueError, TypeError):
        return None  # an unreadable file is measured anew


def record(root: str, what: str, address: str, amount: float, work_s: float, start_s: float) -> None:
    """Adds a run to the measured speed; arguments as in :func:`read` and :class:`Speed`."""
    if amount <= 0:
        return
    known = read(root, what, address) or Speed(0.0, 0.0, 0.0, 0)
    runs = known.runs + 1
    start = (known.start_s * known.runs + start_s) / runs
    added = Speed(known.amount + amount, known.work_s + work_s, start, runs)
    files.write(_path(root, what, address), json.dumps(asdict(added)).encode())


def training_key(run: Run, system: str) -> tuple[str, str]:
    """Kind of work and address under which a training's speed is kept; the seed is left out."""
    settings = run.settings_of(system)
    plain = replace(settings, fit=replace(settings.fit, seed=0))
    return f"train-{system}", address(plain, run.workers.num_workers, run.workers.use_gpu)


def _path(root: str, what: str, address: str) -> str:
    return files.join(root, "_speed", f"{what}-{address}.json")
