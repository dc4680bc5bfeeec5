"""Buckets against disks, two nodes against one, and the time and memory to read the state of a large store."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .demo import copy_videos, prepared_demo
from .measure import resident_mib
from .servers import BUCKET, Traffic, counted_bucket, environment, ray_cluster, s3_server

ON_DISK, IN_BUCKET, SIMULATED, NUM_COPIES = 100_000, 10_000, (100_000, 1_000_000), 1
MAX_LINKS = 60_000
"""Hard links to one file: ext4 allows 65,000."""
ROOT = Path(__file__).parent.parent.parent


def status() -> None:
    """Time to read the state of a store where all videos of a minute are complete: on a disk and in a bucket."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        with counted_bucket(top / "weed") as bucket:
            os.environ.update(environment(bucket.endpoint))
            prepared_demo()
            _make_store(top / "small", IN_BUCKET)
            _upload(top / "small", bucket.uri)
            bucket.traffic.clear()
            _time_status("in a bucket", f"{bucket.uri}/videos", f"{bucket.uri}/store", bucket.traffic, IN_BUCKET)
            _make_store(top / "large", ON_DISK)
            _time_status("on a disk", f"{top}/large/videos", f"{top}/large/store", bucket.traffic, ON_DISK)
    for number in SIMULATED:
        code = f"from benchmarks.remote import simulated; simulated({number})"
        subprocess.run(
            [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/jobs"}
        )


def simulated(number: int) -> None:
    """Time and memory to plan a finished job whose files are only listed, in a process of its own.

    Args:
        number: number of videos, of one clip each.
    """
    from unittest import mock

    from affect.corpus.videos import find
    from affect.pipeline.probe import probe_videos
    from affect.plan.clips import missing_units, unit_keys
    from affect.settings import recipes
    from affect.storage import files, state
    from affect.storage.store import Outcome, Store, probe_key

    run, where = recipes.demo(), dict.fromkeys(("face", "behavior", "audio"), "0123456789abcdef")

    def walk(uri: str) -> Iterator[tuple[str, int, str]]:
        """Listings of the videos and of the store; the cache of states is empty."""
        kind = uri.rsplit("/", 1)[-1]
        for n in range(number if kind != "_state" else 0):
            name, version = f"session{n // 1000:04d}/video{n:07d}.mp4", f"{n:032x}"
            if kind == "corpus":
                yield name, 1 << 20, version
            elif kind == "videos":
                yield probe_key(name, 1 << 20, version).removeprefix("videos/"), 1, version
            else:
                [key] = unit_keys(kind, where[kind], ("neutral",), name, f"{n:012x}", 1)
                yield key.removeprefix(f"{kind}/"), 1, version

    def of(_: Store, key: str) -> state.State:
        """State of an object."""
        if not key.startswith("videos/"):
            return state.State(Outcome("ok", "", 60), None)
        mark = f"{int(key.rsplit('/', 1)[-1][5:12]):012x}"
        return state.State(Outcome("ok", "", 1), state.ProbeSummary(mark, mark, 1500, 59.9, 60.0))

    with (
        mock.patch.object(files, "walk", walk),
        mock.patch.object(files, "write"),
        mock.patch.object(state.State, "of", of),
        mock.patch("affect.corpus.videos._walk", lambda place: (place, list(walk(place)))),
    ):
        before, start = resident_mib(), time.perf_counter()
        probed = probe_videos(find("/corpus"), Store("/store"), {})
        units, existing = missing_units(probed, run, where, Store("/store"), retry_failed=False)
        assert not units and existing.total() == 3 * number
    took, most = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    words = f"{took:.0f} s, at most {most - before:.0f} MiB above the {before:.0f} MiB of the start"
    print(
        f"{number:,} videos, listed only: planned in {words}, {(most - before) * 1024 / number:.2f} KiB a video",
        flush=True,
    )


def _make_store(top: Path, number: int) -> None:
    """Makes empty videos, and a store where the objects of one extracted video are linked for all of them."""
    from unittest import mock

    from affect.pipeline.extract import extract
    from affect.plan.addresses import feature_addresses
    from affect.plan.clips import unit_keys
    from affect.settings import recipes
    from affect.storage.extracted import Extracted
    from affect.storage.store import Store, probe_key

    run, places = recipes.demo(), recipes.demo_places()
    video = next(Path(places.new_videos).glob("*.mp4"))
    one, many = Store(str(top / "one")), Store(str(top / "store"))
    extract(run, str(video), one)
    [probe] = one.keys("videos")
    clips = {kind: next((top / "one" / kind).rglob("*.parquet")) for kind in run.extracted}
    (top / "videos").mkdir()
    fsync = mock.patch("os.fsync")  # a file a millisecond otherwise
    fsync.start()
    table, where = one.get(probe).table, feature_addresses(run)
    for each in range(number):
        name, mark = f"v{each:06d}.mp4", f"{each:012x}"
        (top / "videos" / name).touch()
        version = str((top / "videos" / name).stat().st_mtime)
        row = table.to_pylist()[0] | {"path": name, "fingerprint": mark}
        many.put(probe_key(name, 0, version), Extracted(table.from_pylist([row], schema=table.schema)))
        for kind, source in clips.items():
            if each % MAX_LINKS == 0:
                clips[kind] = source = Path(shutil.copy(source, top / f"{kind}{each}"))
            [key] = unit_keys(kind, where[kind], ("neutral",), name, mark, 1)
            (top / "store" / key).parent.mkdir(parents=True)
            (top / "store" / key).hardlink_to(source)
    fsync.stop()


def _upload(top: Path, place: str) -> None:
    """Copies videos and store to a bucket; probes are named after the versions that the bucket lists."""
    import pyarrow.parquet as pq

    from affect.storage import files
    from affect.storage.store import probe_key

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda p: files.write(f"{place}/videos/{p.name}", b""), (top / "videos").iterdir()))
        versions = {name: version for name, _, version in files.walk(f"{place}/videos")}

        def send(path: Path) -> None:
            key = str(path.relative_to(top / "store"))
            if key.startswith("videos/"):
                name = pq.read_table(path)["path"][0].as_py()
                key = probe_key(name, 0, versions[name])
            files.write(f"{place}/store/{key}", path.read_bytes())

        list(threads.map(send, (p for p in (top / "store").rglob("*.parquet") if not p.name.startswith("_"))))


def _time_status(where: str, videos: str, store: str, traffic: Traffic, number: int) -> None:
    from affect.console.status import status as say_status
    from affect.corpus.videos import find
    from affect.pipeline.probe import probe_videos
    from affect.plan.addresses import feature_addresses
    from affect.plan.clips import missing_units
    from affect.settings import recipes
    from affect.storage.store import Store

    run = recipes.demo()

    def recognise() -> None:
        probed = probe_videos(find(videos), Store(store), {})
        units, existing = missing_units(probed, run, feature_addresses(run), Store(store), retry_failed=False)
        assert not units and existing.total() == 3 * number

    works: list[tuple[str, Callable[[], object]]] = [
        ("a finished job is recognised, nothing noted yet", recognise),
        ("a finished job is recognised", recognise),
        ("--status", lambda: say_status(run, videos, Store(store), [])),
    ]
    for what, work in works:
        traffic.clear()
        start = time.perf_counter()
        work()
        calls = f", calls {dict(traffic.calls)}" if "://" in store else ""
        print(f"{number:,} videos {where}: {what} in {time.perf_counter() - start:.1f} s{calls}", flush=True)


def bucket() -> None:
    """Extraction from and to a bucket against the same on a disk, by turns; the server shares the cores."""
    from affect.pipeline.extract import extract
    from affect.storage import files
    from affect.storage.store import Store

    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        with s3_server(top / "weed", BUCKET) as endpoint:
            os.environ.update(environment(endpoint))
            run, places = prepared_demo()
            local = copy_videos(Path(places.videos).iterdir(), top / "videos", NUM_COPIES)
            best = {"disk": 0.0, "bucket": 0.0}
            for turn in range(3):
                remote = f"s3://{BUCKET}/{turn}"
                for path in local.iterdir():
                    files.write(f"{remote}/videos/{path.name}", path.read_bytes())
                sides = {"disk": (str(local), str(top / f"store{turn}"))}
                sides["bucket"] = (f"{remote}/videos", f"{remote}/store")
                for side, (videos, store) in sides.items():
                    start = time.perf_counter()
                    found = extract(run, videos, Store(store))
                    took = time.perf_counter() - start
                    assert found.done.total() and not found.done["error"], found.reasons
                    best[side] = max(best[side], found.done.total() / took)
                    print(f"{side}: {found.done.total()} clips and modalities in {took:.1f} s", flush=True)
    ratio = best["bucket"] / best["disk"]
    print(f"bucket: {best['bucket']:.2f} a second, disk {best['disk']:.2f}, ratio {ratio:.2f}", flush=True)


def nodes() -> None:
    """Extraction on two nodes of one core each against one such node, from the first finished clip to the last."""
    import ray

    _, places = prepared_demo()
    ray.shutdown()  # the nodes are the only ones that work
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        videos = copy_videos([next(Path(places.new_videos).glob("*.mp4"))], top / "videos", 20)
        rates: dict[int, float] = {1: 0.0, 2: 0.0}
        for turn in range(2):
            for count in rates:
                store = top / f"store{turn}{count}"
                with ray_cluster(count) as cluster:
                    _extract_on(cluster.address, count, videos, store)
                done = sorted(p.stat().st_mtime for p in store.rglob("0*.parquet"))
                rates[count] = max(rates[count], (len(done) - 1) / (done[-1] - done[0]))
                print(f"{count} nodes: {len(done)} objects, {rates[count]:.2f} a second at best", flush=True)
    print(f"nodes: two / one {rates[2] / rates[1]:.2f}", flush=True)


def _extract_on(address: str, num_actors: int, videos: Path, store: Path) -> None:
    """Runs the extraction job on a cluster, with a number of actors per modality."""
    command = [sys.executable, "jobs/extract.py", "demo", "--videos", str(videos), "--store", str(store)]
    command += ["--grid.clip-s", "2.0"]
    for kind, num_cpus in (("face", "0.4"), ("behavior", "0.3"), ("audio", "0.1")):
        for flag, value in (("num-cpus", num_cpus), ("min-actors", num_actors), ("max-actors", num_actors)):
            command += [f"--{kind}.{flag}", str(value)]
    environ = {**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL)
