"""Rounds of faults: processes are killed, disks fill up, objects are damaged, buckets fail; is anything lost?

Every round extracts the same small corpus on a Ray cluster of two nodes into a store of its own. At its end the store
has to equal the store of an undisturbed extraction, every object byte for byte. Moments and victims are drawn from the
round's seed, as far as processes that run side by side can be reproduced.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle, islice
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from affect.console.exits import EXIT_PARTIAL
from affect.storage.attempts import MAX_ATTEMPTS
from affect.storage.store import Store

from .servers import EXPIRED, objects
from .testbed import CLIP_S, Result, Testbed, Trap, is_stage, testbed

PAGE = 4096
"""Bytes of a page of tmpfs: the space of a file is a multiple of it."""
AGAIN = "-again"
"""Suffix of a round that is repeated because its job ended before the kill."""
MAX_ACTORS = 3
"""Actors of a job. When the store refuses writes, each may lose the clip that it works on and the next one."""

Kill = Callable[[Testbed, BaseProcess, Generator], int | None]
"""Kills something: the number of clips that may have to be redone, None if there was nothing to kill."""
Scenario = Callable[[Testbed, str, Generator], Result]
"""A round: from the testbed, the round's name and its random numbers."""


def actor(bed: Testbed, process: BaseProcess, rng: Generator) -> int | None:
    """Kills an actor of the extraction; it loses the clip that it works on."""
    return 1 if _kill(rng, [pid for pid, title in _ray_processes(bed) if is_stage(title)]) else None


def worker(bed: Testbed, process: BaseProcess, rng: Generator) -> int | None:
    """Kills another process that runs tasks and actors of Ray, or waits for some; no clip is lost.

    A node does not outlive its agents; that case is :func:`raylet`'s.
    """
    others = [pid for pid, title in _ray_processes(bed) if not is_stage(title) and b"Agent" not in title]
    return 0 if _kill(rng, others) else None


def raylet(bed: Testbed, process: BaseProcess, rng: Generator) -> int:
    """Replaces a node by another; its actors lose the clips that they work on."""
    nodes = sorted(bed.nodes.worker_nodes, key=lambda node: node.unique_id)
    node = nodes[int(rng.integers(len(nodes)))]
    lost = sum(is_stage(title) for _, title in _ray_processes(bed, [_raylet(node)]))
    bed.replace_node(node)
    return lost


def driver(bed: Testbed, process: BaseProcess, rng: Generator) -> int:
    """Kills the job's process; all its actors end with it."""
    lost = sum(is_stage(title) for _, title in _ray_processes(bed))
    process.kill()
    process.join()
    return lost


def _kill(rng: Generator, pids: list[int]) -> bool:
    """Kills one of several processes; False if none is left."""
    if pids:
        with suppress(ProcessLookupError):  # it ended in the meantime
            os.kill(int(rng.choice(pids)), signal.SIGKILL)
            return True
    return False


def _raylet(node: Any) -> int:  # noqa: ANN401 -- Ray's
    """Process ID of a node's raylet."""
    return int(node.all_processes["raylet"][0].process.pid)


def _ray_processes(bed: Testbed, raylets: list[int] | None = None) -> Iterator[tuple[int, bytes]]:
    """Process IDs and titles of the processes that raylets have started: these, or all of the cluster."""
    parents = raylets or [_raylet(node) for node in bed.nodes.list_all_nodes()]
    for pid in sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()):
        with suppress(OSError):  # it ended in the meantime
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if parent in parents and title.startswith(b"ray::"):
                yield pid, title


def killing(kill: Kill) -> Scenario:
    """A round that kills once or twice after some clips are done; a job that ends by it is started again."""

    def once(bed: Testbed, name: str, rng: Generator) -> Result:
        process, allowed, wrong = bed.start(name), 0, ""
        for moment in sorted(rng.integers(2, len(bed.expected()) // 2, int(rng.integers(1, 3)))):
            bed.wait_for(name, int(moment), process)
            time.sleep(rng.uniform(0, 0.3))
            lost = None
            while lost is None and process.is_alive():
                lost = kill(bed, process, rng)
            if lost is None and not name.endswith(AGAIN):  # too late
                bed.finish(process)
                return once(bed, f"{name}{AGAIN}", rng)
            if lost is None:
                wrong = "twice the job had ended before anything was killed"
                break
            allowed += lost
            if kill is driver:
                process = bed.start(name)
        code = bed.finish(process)
        return bed.compare(name, allowed, f"exit code {code}" if code else wrong)

    return once


def torn_write(bed: Testbed, name: str, rng: Generator) -> Result:
    """An actor is killed in the middle of writing a clip's object."""
    key = rng.choice([key for key in sorted(bed.expected()) if not key.startswith("videos/")])
    kind, start_s = key.split("/")[0], CLIP_S * int(Path(key).stem)
    path = str(rng.choice(sorted(os.listdir(bed.places.videos))))
    code = bed.extract(name, traps=(Trap(kind, path, start_s, "tear"),))
    torn = bed.attempts(name)[f"{kind} {path} {start_s:g}"] == 2
    return bed.compare(name, 1, f"exit code {code}" if code else "" if torn else "no write was torn")


def bad_clips(bed: Testbed, name: str, rng: Generator) -> Result:
    """One clip kills its process, another hangs: both fail after three attempts, and succeed with --retry-failed."""
    first, second = rng.permutation(sorted(os.listdir(bed.places.videos)))[:2]
    traps = Trap("face", str(first), CLIP_S, "die"), Trap("audio", str(second), 0.0, "hang")
    code = bed.extract(name, "--audio.limit-s", "12", traps=traps)
    output = bed.output(name)
    reason = f"its process died {MAX_ATTEMPTS} times, or was stopped"
    given_up = [f"{first} clip 1 face: {reason}" in output, f"{second} clip 0 audio: {reason}" in output]
    wrong = [] if code == EXIT_PARTIAL and all(given_up) else [f"exit code {code}, given up: {given_up}"]
    wrong += _failures(bed.extract(name, "--retry-failed"), " of the retry")
    return bed.compare(name, 2 * MAX_ATTEMPTS, ", ".join(wrong))


def full_disk(bed: Testbed, name: str, rng: Generator) -> Result:
    """The disk fills up, is then read-only, and then has room again."""
    place = Path(bed.store(name))
    place.mkdir()
    pages = sum(-(-len(content) // PAGE) * PAGE for content in bed.expected().values())
    size = int(pages * rng.uniform(0.3, 0.8))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        wrong = _stopped(bed, name, "No space left on device")
        subprocess.run(["mount", "-o", f"remount,ro,size={4 * size}", str(place)], check=True)
        wrong += _stopped(bed, name, "Read-only file system")
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        wrong += _failures(bed.extract(name))
        return bed.compare(name, 2 * MAX_ACTORS, ", ".join(wrong))
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _failures(code: int, when: str = "") -> list[str]:
    """The complaint about an exit code other than 0."""
    return [f"exit code {code}{when}"] if code else []


def _stopped(bed: Testbed, name: str, reason: str, videos: str = "") -> list[str]:
    """Runs a job that has to end with an error of one line; complaints about it and about objects that are torn."""
    before = bed.output(name)
    code = bed.extract(name, videos=videos)
    bed.traffic.fault = None
    output = bed.output(name).removeprefix(before)
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    wrong = [] if code == 1 and len(errors) == 1 and reason in errors[0] else [f"exit code {code}, errors {errors}"]
    written, expected = objects(bed.store(name)), bed.expected(name)
    return wrong + [f"{key} is torn" for key, content in written.items() if expected.get(key) != content]


def damaged_objects(bed: Testbed, name: str, rng: Generator) -> Result:
    """Objects are damaged: all are found, and made again once they are deleted."""
    store, place = Store(bed.store(name)), Path(bed.store(name))
    shutil.copytree(bed.store("whole"), place)
    damaged = [str(key) for key in rng.choice(sorted(bed.expected()), 4, replace=False)]
    cut, longer, flipped, empty = (bed.expected()[key] for key in damaged)
    at = int(rng.integers(4, len(flipped) // 2))
    flipped = flipped[:at] + bytes([flipped[at] ^ 1 << int(rng.integers(8))]) + flipped[at + 1 :]
    for key, content in zip(damaged, (cut[: len(cut) // 2], longer + b"more", flipped, empty[:0]), strict=True):
        (place / key).write_bytes(content)
    found = {key for key in store.keys() if store.check(key)}
    for key in found:
        (place / key).unlink()
    wrong = _failures(bed.extract(name)) + [f"found {found}, damaged {damaged}"] * (found != set(damaged))
    return bed.compare(name, 0, ", ".join(wrong))


def faulty_bucket(share: float, fault: int | str) -> Scenario:
    """A round in a bucket where a share of all requests fails: the job succeeds, with at most twice the calls."""

    def once(bed: Testbed, name: str, rng: Generator) -> Result:
        name = f"{bed.bucket.uri}/{name}"
        videos = bed.upload_videos(name)
        bed.traffic.clear()
        bed.traffic.fault = lambda method, path: fault if rng.random() < share else None
        wrong = _failures(bed.extract(name, videos=videos))
        bed.traffic.fault = None
        calls = bed.traffic.calls.total()
        wrong += [f"{calls} calls, undisturbed {bed.calls}"] * (calls > 2 * bed.calls)
        return bed.compare(name, 0, ", ".join(wrong))

    return once


def expired_credentials(bed: Testbed, name: str, rng: Generator) -> Result:
    """Credentials expire during the job: it ends with an error of one line, and resumes with new credentials."""
    name = f"{bed.bucket.uri}/{name}"
    last, videos = int(bed.calls * rng.uniform(0.3, 0.8)), bed.upload_videos(name)
    bed.traffic.clear()
    bed.traffic.fault = lambda method, path: EXPIRED if bed.traffic.calls.total() > last else None
    wrong = _stopped(bed, name, "access is denied", videos=videos)
    wrong += _failures(bed.extract(name, videos=videos))
    return bed.compare(name, 2 * MAX_ACTORS, ", ".join(wrong))


KILLS: dict[str, Scenario] = {
    "an actor is killed": killing(actor),
    "another process of Ray is killed": killing(worker),
    "a node is lost": killing(raylet),
    "the job is killed": killing(driver),
    "killed in the middle of a write": torn_write,
}
OTHERS: dict[str, Scenario] = {
    "a clip kills its process, one hangs": bad_clips,
    "the disk is full, then read-only": full_disk,
    "objects are damaged": damaged_objects,
    "bucket: 30 % of calls are answered 503": faulty_bucket(0.3, 503),
    "bucket: 20 % of calls are cut in mid-body": faulty_bucket(0.2, "reset"),
    "bucket: 20 % of calls take half a second": faulty_bucket(0.2, "slow"),
    "bucket: credentials expire": expired_credentials,
}


def chaos(rounds: int, seed: int) -> bool:
    """Runs rounds of kills, and every other scenario once per twenty of them, and prints a table.

    Args:
        rounds: number of kills.
        seed: with the round's number, of its random numbers.

    Returns:
        Whether all results are as promised.
    """
    others = [(fault, once) for fault, once in OTHERS.items() if once is not full_disk or os.geteuid() == 0]
    if len(others) < len(OTHERS):
        print("rounds of a full disk are left out: only root can mount the small disk that they fill")
    todo = list(islice(cycle(KILLS.items()), rounds)) + others * -(-rounds // 20)
    results: dict[str, list[Result]] = {}
    with testbed() as bed:
        for number, (fault, once) in enumerate(todo):
            start, name = time.monotonic(), f"round{number:03d}"
            result = once(bed, name, np.random.default_rng([seed, number]))
            bed.replace_lost_nodes()
            results.setdefault(fault, []).append(result)
            took = time.monotonic() - start
            print(
                f"{number + 1} of {len(todo)}, {fault}: {'fine' if result.fine else result}, {took:.0f} s", flush=True
            )
            if not result.fine:
                print(bed.output(name) or bed.output(f"{bed.bucket.uri}/{name}"), flush=True)
    print("\n| fault | rounds | lost | duplicated | redone / allowed | verdict |\n|---|---|---|---|---|---|")
    for fault, rows in results.items():
        numbers = [sum(getattr(row, name) for row in rows) for name in ("lost", "duplicated", "redone", "allowed")]
        lost, duplicated, redone, allowed = numbers
        verdict = "; ".join({row.wrong or "not as promised" for row in rows if not row.fine}) or "fine"
        print(f"| {fault} | {len(rows)} | {lost} | {duplicated} | {redone} / {allowed} | {verdict} |")
    return all(row.fine for rows in results.values() for row in rows)
