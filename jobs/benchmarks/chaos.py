"""Bad days by rounds: something dies, fills up, lies or refuses, and what is there afterwards is compared.

Every round extracts the same small corpus on a Ray of two nodes into a store of its own, and the store has to end as
the one that nothing disturbed, every object byte for byte. Moments and victims follow from the round's seed, as far as
processes that run side by side can follow anything.
"""

import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import ray
from benchmarks.bucket import EXPIRED, Traffic, counted, environment, served
from numpy.random import Generator
from ray.cluster_utils import Cluster

from affect.console.exits import EXIT_PARTIAL
from affect.corpus.clip import Clip
from affect.pipeline import graph
from affect.pipeline.demo_assets import prepare
from affect.pipeline.extract_actor import ExtractActor
from affect.pipeline.job import start_ray
from affect.settings import recipes
from affect.storage import files
from affect.storage.attempts import MAX_ATTEMPTS
from affect.storage.extracted import Extracted, Part
from affect.storage.store import Store

LIMIT_S, BUCKET, PAGE, AGAIN = 300.0, "s3://affect", 4096, "-again"
AT_LEAST_S = 0.3
"""That a clip takes: time to kill something."""
MAX_ACTORS = 3
"""Of a job's actors, each may lose a clip that it works on when the store takes nothing more, and one handed to it."""
CONTEXT = get_context("forkserver")
"""A driver is a process that has imported what it needs, and no Ray yet."""


class Trap(NamedTuple):
    """What happens to the process that works on a clip.

    Args:
        kind: stage.
        path: the clip's video.
        start_s: the clip's start.
        what: ``die`` at every attempt, ``hang`` at every attempt, or ``tear``: die at the first one, in the middle of
            writing what came of it.
    """

    kind: str
    path: str
    start_s: float
    what: Literal["die", "hang", "tear"]


@dataclass(frozen=True)
class Round:
    """How a round ended.

    Args:
        lost: objects that are missing or differ.
        duplicated: objects that the undisturbed store has not.
        redone: attempts at clips beyond their first.
        allowed: the same at most.
        wrong: what else is not as promised.
    """

    lost: int
    duplicated: int
    redone: int
    allowed: int
    wrong: str = ""

    @property
    def fine(self) -> bool:
        """Whether everything is as promised."""
        return not (self.lost or self.duplicated or self.wrong) and self.redone <= self.allowed


def frail(log: str, traps: tuple[Trap, ...]) -> type[ExtractActor]:
    """A stage that notes every attempt at a clip in a file, and steps into traps."""

    class Frail(ExtractActor):
        def _try(self, clip: Clip, begun: Part | None, key: str, limit_s: float) -> Extracted:
            line = f"{self._kind.name} {clip.probe.path} {clip.start_s:g}"
            first = line not in _lines(log)
            with open(log, "a") as file:
                file.write(f"{line}\n")
            time.sleep(AT_LEAST_S)
            sprung = [t.what for t in traps if t[:3] == (self._kind, clip.probe.path, clip.start_s)]
            if "die" in sprung:
                os.kill(os.getpid(), signal.SIGKILL)
            if "hang" in sprung:
                self._extract = _hang
            if "tear" in sprung and first:
                os.fsync = _tear  # type: ignore[assignment]
            return super()._try(clip, begun, key, limit_s)

    return Frail


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if os.path.exists(path) else []


def _hang(clip: Clip, *_: object) -> Extracted:
    time.sleep(3600)
    raise AssertionError(f"{clip.uri} was to be stopped")


def _tear(handle: int) -> None:
    """Die when half of a file has come to the disk."""
    os.truncate(handle, os.fstat(handle).st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)


def _drive(name: str, words: list[str], log: str, traps: tuple[Trap, ...]) -> None:
    """A job's process: the command as users give it, with frail actors."""
    with open(f"{log}.said", "ab", buffering=0) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import it
    graph.ExtractActor = frail(log, traps)  # type: ignore[misc]
    sys.argv = [name, "demo", *words]
    importlib.import_module(f"affect.jobs.{name}").main()


def _prepare(root: str) -> None:
    start_ray()
    prepare(recipes.demo(root), recipes.demo_places(root), "micro")


class Ground:
    """Where rounds take place: a corpus, two nodes, a bucket, and what comes out when nothing happens.

    Args:
        top: folder for all of it.
        nodes: of the Ray.
        traffic: what goes through the proxy before it.
    """

    def __init__(self, top: Path, nodes: Cluster, traffic: Traffic) -> None:
        """Make the corpus and extract it."""
        self.top, self.nodes, self.traffic = top, nodes, traffic
        self.places = recipes.demo_places(str(top))
        self._run(_prepare, str(top))
        codes = [self.extract("whole")]
        videos = self.videos(f"{BUCKET}/whole")
        traffic.clear()
        codes.append(self.extract(f"{BUCKET}/whole", videos=videos))
        self.calls = traffic.calls.total()
        assert codes == [0, 0], self.said("whole") + self.said(f"{BUCKET}/whole")
        self._whole = [self.contents(self.store(place)) for place in ("whole", f"{BUCKET}/whole")]

    def _run(self, work: Callable[..., None], *args: object) -> None:
        process = CONTEXT.Process(target=work, args=args)
        process.start()
        assert self.finish(process) == 0

    def whole(self, name: str = "") -> dict[str, bytes]:
        """What a round's store has to hold: videos are known by their time on a disk, by their tag in a bucket."""
        return self._whole["://" in name]

    def store(self, name: str) -> str:
        """Place of a round's store."""
        return name if "://" in name else str(self.top / name)

    def videos(self, name: str) -> str:
        """The videos in a bucket, at a place that no node has read from."""
        for path in Path(self.places.videos).iterdir():
            files.write(f"{name}-videos/{path.name}", path.read_bytes())
        return f"{name}-videos"

    def start(self, name: str, *more: str, traps: tuple[Trap, ...] = (), videos: str = "") -> BaseProcess:
        """Start an extraction of faces and sound in clips of two seconds."""
        demo = recipes.demo(str(self.top))
        words = ["--videos", videos or self.places.videos, "--store", self.store(name), "--grid.clip-s", "2.0"]
        words += ["--systems", "face", "audio", "--face.weights", demo.face.weights]
        words += "--face.num-cpus 0.3 --face.min-actors 1 --face.max-actors 2".split()
        words += "--audio.num-cpus 0.2 --audio.max-actors 1".split()
        process = CONTEXT.Process(target=_drive, args=("extract", [*words, *more], self._log(name), traps))
        process.start()
        return process

    def finish(self, process: BaseProcess) -> int:
        """Exit code; -9 if it does not end."""
        process.join(LIMIT_S)
        if process.is_alive():
            process.kill()
            process.join()
        assert process.exitcode is not None
        return process.exitcode

    def extract(self, name: str, *more: str, **settings: Any) -> int:  # noqa: ANN401 -- as :meth:`start`
        """Extract and wait for the end."""
        return self.finish(self.start(name, *more, **settings))

    def said(self, name: str) -> str:
        """All that a round's jobs printed."""
        return "\n".join(_lines(f"{self._log(name)}.said"))

    def _log(self, name: str) -> str:
        return str(self.top / f"{name.replace('/', '_')}.attempts")

    def attempts(self, name: str) -> Counter[str]:
        """Attempts by clip and modality."""
        return Counter(_lines(self._log(name)))

    def contents(self, store: str) -> dict[str, bytes]:
        """Every final object of a store."""
        names = (name for name, _, _ in files.walk(store))
        return {n: files.read(files.join(store, n)) for n in names if n[0] != "_" and "._tmp." not in n}

    def wait_for(self, name: str, number: int, process: BaseProcess) -> None:
        """Until so many clips are done, or the job has ended."""
        end = time.monotonic() + LIMIT_S
        while process.is_alive() and time.monotonic() < end:
            if sum(n.endswith(".parquet") and n[0] != "_" for n, _, _ in files.walk(self.store(name))) >= number:
                return
            time.sleep(0.05)

    def mend(self) -> None:
        """Put nodes in the place of those that are gone."""
        for node in [node for node in self.nodes.worker_nodes if not node.remaining_processes_alive()]:
            self.nodes.remove_node(node, allow_graceful=False)
            self.nodes.add_node(num_cpus=1)

    def judge(self, name: str, allowed: int, wrong: str = "") -> Round:
        """Compare a round's store with the undisturbed one."""
        found = self.contents(self.store(name))
        whole = self.whole(name)
        lost = sum(found.get(key) != content for key, content in whole.items())
        redone = sum(number - 1 for number in self.attempts(name).values())
        return Round(lost, len(found.keys() - whole.keys()), redone, allowed, wrong)


Victim = Callable[[Ground, BaseProcess, Generator], int | None]
"""Kills something: how many clips may have to be done again, None if there was nothing to kill."""
Fault = Callable[[Ground, str, Generator], Round]


def actor(ground: Ground, process: BaseProcess, rng: Generator) -> int | None:
    """Kill an actor of the extraction; it loses the clip that it works on."""
    return 1 if _kill(rng, [pid for pid, title in _of_ray(ground) if _is_stage(title)]) else None


def worker(ground: Ground, process: BaseProcess, rng: Generator) -> int | None:
    """Kill any other process that runs Ray's tasks and actors, or waits for some; no clip is lost.

    A node does not outlive its agents: theirs is :func:`raylet`'s part.
    """
    others = [pid for pid, title in _of_ray(ground) if not _is_stage(title) and b"Agent" not in title]
    return 0 if _kill(rng, others) else None


def raylet(ground: Ground, process: BaseProcess, rng: Generator) -> int:
    """Take a node away, and put another in its place; its actors lose the clips that they work on."""
    nodes = sorted(ground.nodes.worker_nodes, key=lambda node: node.unique_id)
    node = nodes[int(rng.integers(len(nodes)))]
    lost = sum(_is_stage(title) for _, title in _of_ray(ground, [_raylet(node)]))
    ground.nodes.remove_node(node, allow_graceful=False)
    ground.nodes.add_node(num_cpus=1)
    return lost


def driver(ground: Ground, process: BaseProcess, rng: Generator) -> int:
    """Kill the job itself; all its actors go with it."""
    lost = sum(_is_stage(title) for _, title in _of_ray(ground))
    process.kill()
    process.join()
    return lost


def _kill(rng: Generator, pids: list[int]) -> bool:
    """Kill one of some processes, if there is one."""
    if pids:
        with suppress(ProcessLookupError):  # it ended meanwhile
            os.kill(int(rng.choice(pids)), signal.SIGKILL)
            return True
    return False


def _raylet(node: Any) -> int:  # noqa: ANN401 -- Ray's
    return int(node.all_processes["raylet"][0].process.pid)


def _of_ray(ground: Ground, raylets: list[int] | None = None) -> Iterator[tuple[int, bytes]]:
    """Processes that raylets have started, all of this Ray's if none is named, and what they call themselves."""
    parents = raylets or [_raylet(node) for node in ground.nodes.list_all_nodes()]
    for pid in sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()):
        with suppress(OSError):  # it ended meanwhile
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if parent in parents and title.startswith(b"ray::"):
                yield pid, title


def _is_stage(title: bytes) -> bool:
    return b"MapBatches(Frail)" in title


def killed(victim: Victim) -> Fault:
    """Once or twice, when some clips are done, something is killed; a job that ends by it is started again."""

    def once(ground: Ground, name: str, rng: Generator) -> Round:
        process, allowed, wrong = ground.start(name), 0, ""
        for moment in sorted(rng.integers(2, len(ground.whole()) // 2, int(rng.integers(1, 3)))):
            ground.wait_for(name, int(moment), process)
            time.sleep(rng.uniform(0, 0.3))
            lost = None
            while lost is None and process.is_alive():
                lost = victim(ground, process, rng)
            if lost is None and not name.endswith(AGAIN):  # too late
                ground.finish(process)
                return once(ground, f"{name}{AGAIN}", rng)
            if lost is None:
                wrong = "twice the job had ended before anything was killed"
                break
            allowed += lost
            if victim is driver:
                process = ground.start(name)
        code = ground.finish(process)
        return ground.judge(name, allowed, f"exit code {code}" if code else wrong)

    return once


def write(ground: Ground, name: str, rng: Generator) -> Round:
    """An actor dies in the middle of writing what came of a clip."""
    key = rng.choice([key for key in sorted(ground.whole()) if not key.startswith("videos/")])
    kind, number = key.split("/")[0], int(Path(key).stem)
    path = str(rng.choice(sorted(os.listdir(ground.places.videos))))
    code = ground.extract(name, traps=(Trap(kind, path, 2.0 * number, "tear"),))
    torn = ground.attempts(name)[f"{kind} {path} {2.0 * number:g}"] == 2
    return ground.judge(name, 1, f"exit code {code}" if code else "" if torn else "no write was torn")


def poison(ground: Ground, name: str, rng: Generator) -> Round:
    """A clip kills its process each time, another hangs: both are given up after three attempts, done when asked."""
    first, second = rng.permutation(sorted(os.listdir(ground.places.videos)))[:2]
    traps = Trap("face", str(first), 2.0, "die"), Trap("audio", str(second), 0.0, "hang")
    code = ground.extract(name, "--audio.limit-s", "12", traps=traps)
    said = ground.said(name)
    why = f"its process died {MAX_ATTEMPTS} times, or was stopped"
    given_up = [f"{first} clip 1 face: {why}" in said, f"{second} clip 0 audio: {why}" in said]
    wrong = [] if code == EXIT_PARTIAL and all(given_up) else [f"exit code {code}, said {given_up}"]
    if code := ground.extract(name, "--retry-failed"):
        wrong.append(f"exit code {code} of the retry")
    return ground.judge(name, 2 * MAX_ATTEMPTS, ", ".join(wrong))


def disk(ground: Ground, name: str, rng: Generator) -> Round:
    """The disk fills up, is then read-only, and then there is room."""
    place = Path(ground.store(name))
    place.mkdir()
    pages = sum(-(-len(content) // PAGE) * PAGE for content in ground.whole().values())
    size = int(pages * rng.uniform(0.3, 0.8))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        wrong = _stopped(ground, name, "No space left on device")
        subprocess.run(["mount", "-o", f"remount,ro,size={4 * size}", str(place)], check=True)
        wrong += _stopped(ground, name, "Read-only file system")
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        if code := ground.extract(name):
            wrong.append(f"exit code {code}")
        return ground.judge(name, 2 * MAX_ACTORS, ", ".join(wrong))
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _stopped(ground: Ground, name: str, reason: str, videos: str = "") -> list[str]:
    """A job has to end by an error in one line, and what is there has to be whole."""
    before = ground.said(name)
    code = ground.extract(name, videos=videos)
    ground.traffic.fault = None
    said = ground.said(name).removeprefix(before)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    wrong = [] if code == 1 and len(errors) == 1 and reason in errors[0] else [f"exit code {code}, said {errors}"]
    there = ground.contents(ground.store(name))
    return wrong + [f"{key} is torn" for key, content in there.items() if ground.whole(name).get(key) != content]


def rot(ground: Ground, name: str, rng: Generator) -> Round:
    """Objects are damaged: all are found, and made again once they are deleted."""
    store, place = Store(ground.store(name)), Path(ground.store(name))
    shutil.copytree(ground.store("whole"), place)
    damaged = [str(key) for key in rng.choice(sorted(ground.whole()), 4, replace=False)]
    cut, longer, flipped, empty = (ground.whole()[key] for key in damaged)
    at = int(rng.integers(4, len(flipped) // 2))
    flipped = flipped[:at] + bytes([flipped[at] ^ 1 << int(rng.integers(8))]) + flipped[at + 1 :]
    for key, content in zip(damaged, (cut[: len(cut) // 2], longer + b"more", flipped, empty[:0]), strict=True):
        (place / key).write_bytes(content)
    found = {key for key in store.keys() if store.check(key)}
    for key in found:
        (place / key).unlink()
    code = ground.extract(name)
    wrong = [f"exit code {code}"] * bool(code) + [f"found {found}, and {damaged} are damaged"] * (found != set(damaged))
    return ground.judge(name, 0, ", ".join(wrong))


def faulty(share: float, what: int | str) -> Fault:
    """A bucket where something happens to a share of all calls: the job ends well, with at most twice the calls."""

    def once(ground: Ground, name: str, rng: Generator) -> Round:
        name = f"{BUCKET}/{name}"
        videos = ground.videos(name)
        ground.traffic.clear()
        ground.traffic.fault = lambda method, path: what if rng.random() < share else None
        code = ground.extract(name, videos=videos)
        ground.traffic.fault = None
        calls = ground.traffic.calls.total()
        wrong = [f"exit code {code}"] * bool(code)
        wrong += [f"{calls} calls, undisturbed {ground.calls}"] * (calls > 2 * ground.calls)
        return ground.judge(name, 0, ", ".join(wrong))

    return once


def expired(ground: Ground, name: str, rng: Generator) -> Round:
    """Credentials expire in mid-run: the job ends by a line that says so, and goes on with new ones."""
    name = f"{BUCKET}/{name}"
    last, videos = int(ground.calls * rng.uniform(0.3, 0.8)), ground.videos(name)
    ground.traffic.clear()
    ground.traffic.fault = lambda method, path: EXPIRED if ground.traffic.calls.total() > last else None
    wrong = _stopped(ground, name, "access is denied", videos=videos)
    if code := ground.extract(name, videos=videos):
        wrong.append(f"exit code {code}")
    return ground.judge(name, 2 * MAX_ACTORS, ", ".join(wrong))


KILLS = {
    "an actor is killed": killed(actor),
    "another process of Ray is killed": killed(worker),
    "a node is lost": killed(raylet),
    "the job is killed": killed(driver),
    "killed in the middle of a write": write,
}
OTHERS = {
    "a clip kills its process, one hangs": poison,
    "the disk is full, then read-only": disk,
    "objects are damaged": rot,
    "bucket: 30 % of calls are answered 503": faulty(0.3, 503),
    "bucket: 20 % of calls are cut in mid-body": faulty(0.2, "reset"),
    "bucket: 20 % of calls take half a second": faulty(0.2, "slow"),
    "bucket: credentials expire": expired,
}


@contextmanager
def ground() -> Iterator[Ground]:
    """Set everything up, and take it away."""
    with ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        direct = stack.enter_context(served(top / "weed", BUCKET.removeprefix("s3://")))
        endpoint, traffic = stack.enter_context(counted(direct))
        os.environ |= environment(endpoint) | {"AFFECT_CACHE": str(files.cache()), "RAY_USAGE_STATS_ENABLED": "0"}
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ["RAY_TMPDIR"] = str(top)  # where a Ray tells others of this machine that it is there
        head = {"num_cpus": 0, "object_store_memory": 100_000_000, "include_dashboard": False}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        stack.callback(nodes.shutdown)
        os.environ["RAY_ADDRESS"] = nodes.address
        for _ in range(2):
            nodes.add_node(num_cpus=1)
        yield Ground(top, nodes, traffic)


def chaos(rounds: int, seed: int) -> bool:
    """Go through rounds of everything that may die, and one in twenty of all else, and print what came of it.

    Args:
        rounds: of kills.
        seed: of the first round.

    Returns:
        Whether all is as promised.
    """
    others = [(fault, once) for fault, once in OTHERS.items() if once is not disk or os.geteuid() == 0]
    if len(others) < len(OTHERS):
        print("the rounds of a full disk are left out: they mount one, which is the superuser's right")
    todo = list(islice(cycle(KILLS.items()), rounds)) + others * -(-rounds // 20)
    ended: dict[str, list[Round]] = {}
    with ground() as place:
        for number, (fault, once) in enumerate(todo):
            start, name = time.monotonic(), f"round{number:03d}"
            found = once(place, name, np.random.default_rng([seed, number]))
            place.mend()
            ended.setdefault(fault, []).append(found)
            took = time.monotonic() - start
            print(f"{number + 1} of {len(todo)}, {fault}: {'fine' if found.fine else found}, {took:.0f} s", flush=True)
            if not found.fine:
                print(place.said(name) or place.said(f"{BUCKET}/{name}"), flush=True)
    print("\n| fault | rounds | lost | duplicated | redone / allowed | verdict |\n|---|---|---|---|---|---|")
    for fault, rows in ended.items():
        numbers = [sum(getattr(row, name) for row in rows) for name in ("lost", "duplicated", "redone", "allowed")]
        lost, duplicated, redone, allowed = numbers
        verdict = "; ".join({row.wrong or "not as promised" for row in rows if not row.fine}) or "fine"
        print(f"| {fault} | {len(rows)} | {lost} | {duplicated} | {redone} / {allowed} | {verdict} |")
    return all(row.fine for rows in ended.values() for row in rows)
