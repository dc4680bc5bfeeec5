"""Everything from and to a real S3 server, as on a disk; what it refuses is one clear line."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from s3fs import S3FileSystem

from affect import weights
from affect.corpus import video
from affect.pipeline import job
from affect.storage import files
from affect.storage.store import read_table
from jobs.benchmarks.servers import BUCKET as NAME
from jobs.benchmarks.servers import EXPIRED, READER, Bucket, counted_bucket, counting_proxy, environment, objects
from tests.conftest import Micro
from tests.jobs import finish, start_job
from tests.media import noise


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with counted_bucket(tmp_path_factory.mktemp("weed")) as bucket:
        yield bucket


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Let this process use a server with some credentials."""

    def change(endpoint: str, **credentials: str) -> None:
        for name, value in environment(endpoint, **credentials).items():
            monkeypatch.setenv(name, value)
        files.resolve.cache_clear()
        S3FileSystem.clear_instance_cache()

    yield change
    files.resolve.cache_clear()
    S3FileSystem.clear_instance_cache()


@dataclass(frozen=True)
class Places:
    videos: str
    labels: str


@pytest.mark.parametrize(
    ("credentials", "uri", "said"),
    [
        ({"secret": "wrong"}, f"s3://{NAME}/videos", "access is denied"),
        ({"key": "nobody"}, f"s3://{NAME}/videos", "access is denied"),
        ({}, "s3://nothing/videos", "there is no such bucket"),
        ({}, "s4://bucket/videos", "give a folder or s3://BUCKET/PREFIX"),
    ],
)
def test_what_a_bucket_refuses_is_said_before_any_work(
    bucket: Bucket, enter: Callable[..., None], credentials: dict[str, str], uri: str, said: str
):
    enter(bucket.endpoint, **credentials)
    with pytest.raises((OSError, ValueError), match=said) as raised:
        job.check_buckets(Places(uri, "labels"), ())
    assert uri in str(raised.value) and "\n" not in str(raised.value)


def test_a_place_that_cannot_be_written_to_is_said_before_any_work(bucket: Bucket, enter: Callable[..., None]):
    @dataclass(frozen=True)
    class Extract:
        store: str
        plan: bool = False

    enter(bucket.endpoint, key=READER)
    job.check_buckets(Places(f"s3://{NAME}/videos", f"s3://{NAME}/labels"), ())
    job.check_buckets(Extract(f"s3://{NAME}/store", plan=True), ("store",))
    with pytest.raises(PermissionError, match=f"s3://{NAME}/store: access is denied"):
        job.check_buckets(Extract(f"s3://{NAME}/store"), ("store",))


def test_an_endpoint_that_is_down_and_another_region_are_said(bucket: Bucket, enter: Callable[..., None]):
    enter("http://127.0.0.1:9")
    with pytest.raises(OSError, match=f"s3://{NAME}/videos: cannot be reached"):
        files.check_readable(f"s3://{NAME}/videos")
    with counting_proxy(bucket.direct, lambda method, path: 400) as (endpoint, _):
        enter(endpoint)
        with pytest.raises(OSError, match=r"is in another region .*eu-west-1.*; set AWS_DEFAULT_REGION"):
            files.check_readable(f"s3://{NAME}/videos")


def test_credentials_that_are_missing_are_said(
    bucket: Bucket, enter: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    enter(bucket.endpoint)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(OSError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or"):
        files.check_readable(f"s3://{NAME}/videos")


def test_a_busy_server_is_asked_again_and_a_permission_error_never(bucket: Bucket, enter: Callable[..., None]):
    drawn = np.random.default_rng(0)
    with counting_proxy(bucket.direct, lambda method, path: 503 if drawn.random() < 0.3 else None) as (
        endpoint,
        traffic,
    ):
        enter(endpoint)
        for number in range(20):
            files.write(f"s3://{NAME}/busy/{number}", b"x" * number)
        assert [size for _, size, _ in files.walk(f"s3://{NAME}/busy")] == [int(n) for n in sorted(map(str, range(20)))]
        assert 20 < traffic.calls["PUT"] < 40
    with counting_proxy(bucket.direct, lambda method, path: 403) as (endpoint, traffic):
        enter(endpoint)
        with pytest.raises(PermissionError):
            files.write(f"s3://{NAME}/busy/a", b"x")
        assert traffic.calls.total() == 1


def test_credentials_that_expire_are_said_at_once(bucket: Bucket, enter: Callable[..., None]):
    with counting_proxy(bucket.direct, lambda method, path: EXPIRED) as (endpoint, traffic):
        enter(endpoint)
        for work in (lambda uri: files.write(uri, b"x"), files.read, files.exists, lambda uri: list(files.walk(uri))):
            traffic.clear()
            with pytest.raises(PermissionError, match=r"access is denied \(.*(too old|expired)") as caught:
                work(f"s3://{NAME}/old/a")
            assert "\n" not in str(caught.value) and traffic.calls.total() <= 2


def test_one_put_an_object_and_what_is_there_is_kept_where_asked(bucket: Bucket, enter: Callable[..., None]):
    enter(bucket.endpoint)
    bucket.traffic.clear()
    uri = f"s3://{NAME}/once/a.bin"
    files.write(uri, b"first", replace=False)
    files.write(uri, b"second", replace=False)
    assert bucket.traffic.calls == Counter(PUT=2) and files.read(uri) == b"first"
    files.write(uri, b"third")
    assert files.read(uri) == b"third"


def test_a_clip_is_read_by_range(
    bucket: Bucket, enter: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Less than 1.3 times the bytes of the clip leave the server, and a probe costs the index and both ends."""
    enter(bucket.endpoint)
    monkeypatch.setenv("AFFECT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "films"
    folder.mkdir()
    path = noise(folder / "a.mp4", "libx264", {"bf": "3", "g": "12", "preset": "ultrafast"}, 900)
    uri = f"{bucket.upload(folder, 'films')}/a.mp4"
    bucket.traffic.clear()
    info = video.probe(uri, path.name)
    assert bucket.traffic.sent < 2 * files.MIB + 0.1 * path.stat().st_size
    bucket.traffic.clear()
    mine = [picture for _, picture in video.decode(str(path), info, 300, 600)]
    theirs = [picture for _, picture in video.decode(uri, info, 300, 600)]
    assert len(mine) == len(theirs) == 300 and all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert bucket.traffic.sent < 1.3 * path.stat().st_size / 3, bucket.traffic.calls


def test_weights_in_a_bucket_are_the_same_weights_and_fetched_once(
    bucket: Bucket, enter: Callable[..., None], micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    enter(bucket.endpoint)
    monkeypatch.setenv("AFFECT_CACHE", str(tmp_path / "cache"))
    name = bucket.upload(Path(micro.run.face.weights), "one")
    assert weights.identity(name) == weights.identity(micro.run.face.weights)
    bucket.traffic.clear()
    assert weights.folder(name) == weights.folder(name) and bucket.traffic.calls["GET"] == 0
    single = weights.file(f"{name}/model.safetensors")
    assert single.read_bytes() == (Path(micro.run.face.weights) / "model.safetensors").read_bytes()
    with pytest.raises(weights.WeightsError, match="no such file or folder"):
        weights.folder(f"s3://{NAME}/nothing")


def test_what_a_console_makes_to_show_a_folder_is_no_file(
    bucket: Bucket, enter: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    enter(bucket.endpoint)
    monkeypatch.setenv("AFFECT_CACHE", str(tmp_path))
    system, _ = files.resolve(f"s3://{NAME}")
    for key in ("marked/", "marked/sub/", "marked/sub/a.safetensors"):
        system.call_s3("put_object", Bucket=NAME, Key=key, Body=b"")
    assert [name for name, _, _ in files.walk(f"s3://{NAME}/marked")] == ["sub/a.safetensors"]
    assert (weights.folder(f"s3://{NAME}/marked") / "sub" / "a.safetensors").exists()


def flags(micro: Micro, where: str) -> list[str]:
    """The micro run's settings as a command line, its weights elsewhere."""
    found = ["--grid.clip-s", "2.0", "--face.min-actors", "1", "--face.max-actors", "1"]
    for part in ("face-transformer", "mamba", "wavlm", "dcmmoe", "raav"):
        found += [f"--{part}.fit.max-epochs", "2"]
    for part in ("face", "behavior", "wavlm"):
        found += [f"--{part}.weights", where + getattr(micro.run, part).weights.removeprefix(str(micro.root))]
    return found


class Through(NamedTuple):
    """Jobs that worked in a bucket.

    Args:
        place: prefix of their videos, labels, store, models and predictions.
        calls: requests of a second extraction, by method.
        output: of the second extraction.
    """

    place: str
    calls: Counter[str]
    output: str


@pytest.fixture(scope="module")
def through(bucket: Bucket, predicted: str, trained: Micro, tmp_path_factory: pytest.TempPathFactory) -> Through:
    """Extract, train and predict, from and to a bucket; then extract once more."""
    place = bucket.upload(trained.root / "corpus", "micro/corpus").removesuffix("/corpus")
    bucket.upload(trained.root / "weights", "micro/weights")
    settings = [*flags(trained, place), "--store", f"{place}/store"]
    cache = {"AFFECT_CACHE": str(files.cache())}
    videos = ["--videos", f"{place}/corpus/videos", "--labels", f"{place}/corpus/labels"]
    runs = ["--runs", f"{place}/runs"]
    new = ["--videos", trained.places.new_videos.replace(str(trained.root), place), "--out", f"{place}/out"]
    for name, more in (("extract", videos), ("train", [*videos, *runs]), ("predict", [*new, *runs])):
        finish(start_job(name, *settings, *more, **environment(bucket.endpoint), **cache))
    bucket.traffic.clear()
    output = finish(start_job("extract", *settings, *videos, **environment(bucket.endpoint), **cache))
    return Through(place, Counter(bucket.traffic.calls), output)


@pytest.mark.slow
def test_every_byte_equals_the_local_runs(
    through: Through, bucket: Bucket, trained: Micro, predicted: str, enter: Callable[..., None]
):
    enter(bucket.endpoint)
    here, there = objects(trained.places.store), objects(f"{through.place}/store")
    probes = [{v for k, v in side.items() if k.startswith("videos/")} for side in (here, there)]
    assert len(probes[1]) == 3 and probes[1] <= probes[0]  # named after a version: a time on a disk, here a hash
    for side in (here, there):
        for key in [key for key in side if key.startswith("videos/")]:
            del side[key]
    assert not set(there) - set(here)
    assert [key for key in there if there[key] != here[key]] == []
    assert {key.split("/")[0] for key in there} >= {"face", "behavior", "audio", "tracks", "waveforms", "embedded"}
    assert files.exists(f"{through.place}/out/report/index.html")
    models = objects(f"{through.place}/runs")
    weights_of = {name: content for name, content in models.items() if name.endswith("model.safetensors")}
    assert len(weights_of) == 5
    for name, content in weights_of.items():
        assert content == (Path(trained.places.runs) / name).read_bytes()
    [mine] = sorted(Path(predicted).glob("*.parquet"))
    theirs = read_table(f"{through.place}/out/{mine.name}")  # a note in the file names what was asked, a template here
    assert theirs.replace_schema_metadata().equals(read_table(str(mine)).replace_schema_metadata())


@pytest.mark.slow
def test_a_finished_job_is_recognised_by_listing(through: Through):
    assert "everything is in" in through.output
    assert through.calls["HEAD"] < 20 and through.calls.total() < 60, through.calls  # of 18 units or of 40,000


@pytest.mark.slow
def test_a_wrong_secret_is_one_line_and_no_work(bucket: Bucket, micro: Micro, through: Through):
    places = ["--videos", f"{bucket.uri}/v", "--store", f"{bucket.uri}/s"]
    assert "no such folder or file" in finish(start_job("extract", *places, **environment(bucket.endpoint)), code=1)
    refused = finish(start_job("extract", *places, **environment(bucket.endpoint, secret="wrong")), code=1)
    [line] = refused.strip().splitlines()
    assert line.startswith(f"error: {bucket.uri}/v: access is denied")


@pytest.mark.slow
def test_two_jobs_on_one_store_do_no_harm(
    bucket: Bucket, through: Through, extracted: Micro, enter: Callable[..., None]
):
    store = f"s3://{NAME}/shared"
    arguments = [*flags(extracted, through.place), "--videos", f"{through.place}/corpus/videos", "--store", store]
    bucket.traffic.clear()
    for process in [start_job("extract", *arguments, **environment(bucket.endpoint)) for _ in range(2)]:
        assert "units 18 ok" in finish(process)
    enter(bucket.endpoint)
    puts = Counter(
        p.split("?")[0] for m, p in bucket.traffic.requests if m == "PUT" and "/shared/" in p and "/_" not in p
    )
    here, there = objects(extracted.places.store), objects(store)
    assert all(here[key] == content for key, content in there.items() if not key.startswith("videos/"))
    assert len(there) == 20 and max(puts.values()) <= 2
