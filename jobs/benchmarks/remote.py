"""Buckets against disks, two nodes against one, and how soon a store of 10,000 videos is known in either place."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.bucket import Traffic, counted, environment, served

from affect.pipeline.probe import probe_videos
from affect.plan.addresses import feature_addresses
from affect.plan.clips import missing_units, unit_keys

NUM_VIDEOS, NUM_COPIES = 10_000, 1
NAME = "affect"
ROOT = Path(__file__).parent.parent.parent


def status() -> None:
    """Time until 10,000 videos of a minute are known, all of whose clips are there: on a disk and in a bucket."""
    from affect.pipeline.demo_assets import prepare
    from affect.pipeline.job import start_ray
    from affect.settings import recipes

    run, places = recipes.demo(), recipes.demo_places()
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        with served(top / "weed", NAME) as direct, counted(direct) as (endpoint, traffic):
            os.environ.update(environment(endpoint))
            start_ray()
            prepare(run, places)
            _make_store(top)
            _time_status("on a disk", str(top / "videos"), str(top / "store"), traffic)
            place = _upload(top)
            traffic.clear()
            _time_status("in a bucket", f"{place}/videos", f"{place}/store", traffic)


def _make_store(top: Path) -> None:
    """Empty videos, and a store that one video's objects stand for all of."""
    from affect.settings import recipes
    from affect.storage.extracted import Extracted

    pass
    from affect.pipeline.extract import extract
    from affect.storage.store import Store, probe_key

    run, places = recipes.demo(), recipes.demo_places()
    video = next(Path(places.new_videos).glob("*.mp4"))
    one, many = Store(str(top / "one")), Store(str(top / "store"))
    extract(run, str(video), one)
    [probe] = one.keys("videos")
    clips = {kind: next((top / "one" / kind).rglob("*.parquet")) for kind in run.extracted}
    (top / "videos").mkdir()
    table, where = one.get(probe).table, feature_addresses(run)
    for number in range(NUM_VIDEOS):
        name, mark = f"v{number:05d}.mp4", f"{number:012x}"
        (top / "videos" / name).touch()
        version = str((top / "videos" / name).stat().st_mtime)
        row = table.to_pylist()[0] | {"path": name, "fingerprint": mark}
        many.put(probe_key(name, 0, version), Extracted(table.from_pylist([row], schema=table.schema)))
        for kind, source in clips.items():
            [key] = unit_keys(kind, where[kind], ("neutral",), name, mark, 1)
            (top / "store" / key).parent.mkdir(parents=True)
            (top / "store" / key).hardlink_to(source)


def _upload(top: Path) -> str:
    """The same in a bucket; probes are named after what the bucket says of the videos."""
    import pyarrow.parquet as pq

    from affect.storage import files
    from affect.storage.store import probe_key

    place = f"s3://{NAME}"
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
    return place


def _time_status(where: str, videos: str, store: str, traffic: Traffic) -> None:
    from affect.corpus.videos import find
    from affect.settings import recipes

    pass
    from affect.console.status import status as say_status
    from affect.storage.store import Store

    run = recipes.demo()

    def recognise() -> None:
        probed = probe_videos(find(videos), Store(store), {})
        units, existing = missing_units(probed, run, feature_addresses(run), Store(store), retry_failed=False)
        assert not units and len(existing) == 3 * NUM_VIDEOS

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
        print(f"{NUM_VIDEOS:,} videos {where}: {what} in {time.perf_counter() - start:.1f} s{calls}", flush=True)


def bucket() -> None:
    """Extraction from and to a bucket against the same on a disk, by turns; a server and the work share the cores."""
    from affect.pipeline.demo_assets import prepare
    from affect.pipeline.extract import extract
    from affect.pipeline.job import start_ray
    from affect.settings import recipes
    from affect.storage import files
    from affect.storage.store import Store

    run, places = recipes.demo(), recipes.demo_places()
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        with served(top / "weed", NAME) as endpoint:
            os.environ.update(environment(endpoint))
            start_ray()
            prepare(run, places)
            (top / "videos").mkdir()
            for path in Path(places.videos).iterdir():
                for number in range(NUM_COPIES):
                    shutil.copy(path, top / "videos" / f"{path.stem}-{number}{path.suffix}")
            best = {"disk": 0.0, "bucket": 0.0}
            for turn in range(3):
                for path in (top / "videos").iterdir():
                    files.write(f"s3://{NAME}/{turn}/videos/{path.name}", path.read_bytes())
                sides = {"disk": (str(top / "videos"), str(top / f"store{turn}"))}
                sides["bucket"] = (f"s3://{NAME}/{turn}/videos", f"s3://{NAME}/{turn}/store")
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
    """Extraction on two nodes of a core each against one such node, from the first clip that is done to the last."""
    from ray.cluster_utils import Cluster

    from affect.pipeline.demo_assets import prepare
    from affect.settings import recipes

    places = recipes.demo_places()
    prepare(recipes.demo(), places)
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        (top / "videos").mkdir()
        source = next(Path(places.new_videos).glob("*.mp4"))
        for number in range(20):
            shutil.copy(source, top / "videos" / f"copy{number:02d}.mp4")
        rates: dict[int, float] = {1: 0.0, 2: 0.0}
        for turn in range(2):
            for count in rates:
                cluster = Cluster(
                    initialize_head=True,
                    head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000, "include_dashboard": False},
                )
                for _ in range(count):
                    cluster.add_node(num_cpus=1)
                store = top / f"store{turn}{count}"
                pools = [
                    w
                    for kind, cpus in (("face", "0.4"), ("behavior", "0.3"), ("audio", "0.1"))
                    for w in (
                        f"--{kind}.num-cpus",
                        cpus,
                        f"--{kind}.min-actors",
                        str(count),
                        f"--{kind}.max-actors",
                        str(count),
                    )
                ]
                command = [sys.executable, "jobs/extract.py", "demo", "--videos", str(top / "videos")]
                command += ["--store", str(store), "--grid.clip-s", "2.0", *pools]
                try:
                    environ = {**os.environ, "RAY_ADDRESS": cluster.address, "PYTHONPATH": str(ROOT)}
                    subprocess.run(command, cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL)
                finally:
                    cluster.shutdown()
                done = sorted(p.stat().st_mtime for p in store.rglob("0*.parquet"))
                rates[count] = max(rates[count], (len(done) - 1) / (done[-1] - done[0]))
                print(f"{count} nodes: {len(done)} objects, {rates[count]:.2f} a second at best", flush=True)
    print(f"nodes: two / one {rates[2] / rates[1]:.2f}", flush=True)
