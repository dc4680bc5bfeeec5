"""The system under test of the chaos benchmark: a corpus, a Ray cluster of two nodes, a bucket, jobs with traps."""

import importlib
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import ray

from affect.corpus.clip import Clip
from affect.pipeline import graph, streams
from affect.pipeline.demo_assets import prepare
from affect.pipeline.extract_actor import ExtractActor
from affect.pipeline.job import start_ray
from affect.settings import recipes
from affect.storage import files
from affect.storage.extracted import Extracted, Part

from .servers import Bucket, counted_bucket, environment, objects, ray_cluster

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

LIMIT_S = 300.0
"""Longest time that a job may take."""
MIN_CLIP_S = 0.3
"""Shortest time of an attempt at a clip: time to kill a process that works on it."""
CLIP_S = 2.0
"""Length of clips, in seconds."""
CONTEXT = get_context("forkserver")
"""Starts jobs as processes that have imported their modules but have not connected to Ray."""


class Trap(NamedTuple):
    """A fault of the process that works on a clip.

    Args:
        kind: stage.
        path: the clip's video.
        start_s: the clip's start.
        action: ``die`` or ``hang`` at every attempt, or ``tear``: die at the first attempt, in the middle of writing
            the clip's object.
    """

    kind: str
    path: str
    start_s: float
    action: Literal["die", "hang", "tear"]


@dataclass(frozen=True)
class Result:
    """Result of a round: its store compared with the undisturbed one.

    Args:
        lost: objects that are missing or differ.
        duplicated: objects that the undisturbed store does not have.
        redone: attempts at clips beyond their first.
        allowed: upper limit of ``redone``.
        wrong: everything else that differs from what is promised; empty if nothing does.
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


def trapped_stage(log: str, traps: tuple[Trap, ...]) -> type[ExtractActor]:
    """A stage that notes every attempt at a clip in a file and springs traps."""

    class TrappedStage(ExtractActor):
        def _try(self, clip: Clip, begun: Part | None, key: str, limit_s: float) -> Extracted:
            line = f"{self._kind.name} {clip.probe.path} {clip.start_s:g}"
            first = line not in _lines(log)
            with open(log, "a") as file:
                file.write(f"{line}\n")
            time.sleep(MIN_CLIP_S)
            actions = [t.action for t in traps if t[:3] == (self._kind.name, clip.probe.path, clip.start_s)]
            if "die" in actions:
                os.kill(os.getpid(), signal.SIGKILL)
            if "hang" in actions:
                self._extract = _hang
            if "tear" in actions and first:
                os.fsync = _tear  # type: ignore[assignment]
            return super()._try(clip, begun, key, limit_s)

    return TrappedStage


def is_stage(title: bytes) -> bool:
    """Whether a process runs an actor of the extraction, by its title."""
    return b"MapBatches(TrappedStage)" in title


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if os.path.exists(path) else []


def _hang(clip: Clip, *_: object) -> Extracted:
    time.sleep(3600)
    raise AssertionError(f"{clip.uri} should have been stopped")


def _tear(handle: int) -> None:
    """Dies when half of a file is on the disk."""
    os.truncate(handle, os.fstat(handle).st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)


def _drive(name: str, arguments: list[str], log: str, traps: tuple[Trap, ...]) -> None:
    """Runs a job as users do, with trapped actors; the target of a job's process."""
    with open(f"{log}.output", "ab", buffering=0) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import it
    graph.ExtractActor = trapped_stage(log, traps)  # type: ignore[misc]
    streams.BLOCKS_PER_ACTOR = 1  # several clips to a block, as in a large corpus
    sys.argv = [name, "demo", *arguments]
    importlib.import_module(f"affect.jobs.{name}").main()


def _prepare(root: str) -> None:
    start_ray()
    prepare(recipes.demo(root), recipes.demo_places(root), "micro")


class Testbed:
    """A corpus, a cluster of two nodes, a bucket, and the contents of undisturbed stores on the disk and in the bucket.

    Args:
        top: folder for all of it.
        nodes: the Ray cluster.
        bucket: behind a proxy.
    """

    def __init__(self, top: Path, nodes: "Cluster", bucket: Bucket) -> None:
        """Makes the corpus and extracts it into both stores."""
        self.top, self.nodes, self.bucket, self.traffic = top, nodes, bucket, bucket.traffic
        self.places = recipes.demo_places(str(top))
        self._run(_prepare, str(top))
        local, remote = "whole", f"{bucket.uri}/whole"
        codes = [self.extract(local)]
        videos = self.upload_videos(remote)
        self.traffic.clear()
        codes.append(self.extract(remote, videos=videos))
        self.calls = self.traffic.calls.total()
        assert codes == [0, 0], self.output(local) + self.output(remote)
        self._expected = [objects(self.store(local)), objects(self.store(remote))]

    def _run(self, work: Callable[..., None], *args: object) -> None:
        process = CONTEXT.Process(target=work, args=args)
        process.start()
        assert self.finish(process) == 0

    def expected(self, name: str = "") -> dict[str, bytes]:
        """Objects of the undisturbed store; probes are named after modification times on a disk, ETags in a bucket."""
        return self._expected["://" in name]

    def store(self, name: str) -> str:
        """Place of a round's store."""
        return name if "://" in name else str(self.top / name)

    def upload_videos(self, name: str) -> str:
        """Copies the videos into the bucket, below a prefix that no node has read from; the copies' URI."""
        for path in Path(self.places.videos).iterdir():
            files.write(f"{name}-videos/{path.name}", path.read_bytes())
        return f"{name}-videos"

    def start(self, name: str, *flags: str, traps: tuple[Trap, ...] = (), videos: str = "") -> BaseProcess:
        """Starts an extraction of faces and sound.

        Args:
            name: of the round, and of its store.
            flags: further flags of the job.
            traps: faults of its actors.
            videos: the corpus' on the disk if not given.
        """
        demo = recipes.demo(str(self.top))
        arguments = ["--videos", videos or self.places.videos, "--store", self.store(name)]
        arguments += ["--systems", "face", "audio", "--grid.clip-s", str(CLIP_S), "--face.weights", demo.face.weights]
        arguments += "--face.num-cpus 0.3 --face.min-actors 1 --face.max-actors 2".split()
        arguments += "--audio.num-cpus 0.2 --audio.max-actors 1".split()
        process = CONTEXT.Process(target=_drive, args=("extract", [*arguments, *flags], self._log(name), traps))
        process.start()
        return process

    def finish(self, process: BaseProcess) -> int:
        """Waits for a process; its exit code, -9 if it had to be killed after LIMIT_S."""
        process.join(LIMIT_S)
        if process.is_alive():
            process.kill()
            process.join()
        assert process.exitcode is not None
        return process.exitcode

    def extract(self, name: str, *flags: str, traps: tuple[Trap, ...] = (), videos: str = "") -> int:
        """Runs an extraction to its end, with the arguments of :meth:`start`; its exit code."""
        return self.finish(self.start(name, *flags, traps=traps, videos=videos))

    def output(self, name: str) -> str:
        """Everything that a round's jobs printed."""
        return "\n".join(_lines(f"{self._log(name)}.output"))

    def _log(self, name: str) -> str:
        return str(self.top / f"{name.replace('/', '_')}.attempts")

    def attempts(self, name: str) -> Counter[str]:
        """Number of attempts by stage, video and start of the clip."""
        return Counter(_lines(self._log(name)))

    def wait_for(self, name: str, number: int, process: BaseProcess) -> None:
        """Waits until a number of clips are done, or the job has ended."""
        end = time.monotonic() + LIMIT_S
        while process.is_alive() and time.monotonic() < end:
            if sum(n.endswith(".parquet") and n[0] != "_" for n, _, _ in files.walk(self.store(name))) >= number:
                return
            time.sleep(0.05)

    def replace_lost_nodes(self) -> None:
        """Adds a node for every node that has lost its processes."""
        for node in [node for node in self.nodes.worker_nodes if not node.remaining_processes_alive()]:
            self.replace_node(node)

    def replace_node(self, node: Any) -> None:  # noqa: ANN401 -- Ray's
        """Removes a node at once, and adds another."""
        self.nodes.remove_node(node, allow_graceful=False)
        self.nodes.add_node(num_cpus=1)

    def compare(self, name: str, allowed: int, wrong: str = "") -> Result:
        """Compares a round's store with the undisturbed one."""
        found, expected = objects(self.store(name)), self.expected(name)
        lost = sum(found.get(key) != content for key, content in expected.items())
        redone = sum(number - 1 for number in self.attempts(name).values())
        return Result(lost, len(found.keys() - expected.keys()), redone, allowed, wrong)


@contextmanager
def testbed() -> Iterator[Testbed]:
    """Starts everything in a temporary folder, and removes it at the end of the block."""
    with ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        bucket = stack.enter_context(counted_bucket(top / "weed"))
        os.environ |= environment(bucket.endpoint)
        os.environ |= {"AFFECT_CACHE": str(files.cache()), "RAY_USAGE_STATS_ENABLED": "0"}
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ["RAY_TMPDIR"] = str(top)  # where a Ray announces itself to other processes of this machine
        nodes = stack.enter_context(ray_cluster(2))
        os.environ["RAY_ADDRESS"] = nodes.address
        yield Testbed(top, nodes, bucket)
