"""Pictures on their way into the frame encoder's training: read with Ray, in order, and left out where broken."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from affect.corpus.images import ImageError, read_manifest
from affect.face import grada
from affect.face.encoder_task import GradaTask
from affect.learning.batches import Batch, Share, load_here
from affect.pipeline import stream
from affect.pipeline.encoder import train_encoder
from affect.pipeline.encoder_worker import MAX_NAMED, ImageLoader
from tests.pictures import RUN, Pictures, group, make_pictures

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return make_pictures(tmp_path_factory.mktemp("pictures"))


def equal(one: Batch, other: Batch) -> bool:
    """Whether two batches are equal, NaN to NaN."""
    same = torch.equal(one.inputs["crops"], other.inputs["crops"]) and torch.equal(one.annotated, other.annotated)
    return same and torch.equal(one.gold.nan_to_num(9), other.gold.nan_to_num(9)) and one.gold.dtype == other.gold.dtype


def test_pictures_read_with_ray_are_those_read_here_in_the_same_order(local_ray: str, pictures: Pictures):
    task = GradaTask(RUN)
    samples = [
        (item, w) for item in read_manifest(pictures.wild) + read_manifest(pictures.lab) for w in task.windows(item)
    ]
    order = np.random.default_rng(0).permutation(len(samples)).tolist()
    shares = [Share([samples[i] for i in order[start : start + 4]], 1) for start in range(0, len(order), 4)]
    shares.append(Share([samples[0]], 1))  # more batches than one reading task makes, and of two sizes
    here, there = list(load_here(task, shares, CPU)), list(ImageLoader(0.25)(task, shares, CPU))
    assert len(here) == len(there) == len(shares) > stream.BATCHES_PER_TASK
    assert all(equal(one, other) for one, other in zip(here, there, strict=True))
    assert list(ImageLoader(0.25)(task, [], CPU)) == []


def test_batches_come_in_order_although_the_first_ones_take_longest_to_read(local_ray: str, tmp_path: Path):
    large = np.random.default_rng(0).integers(0, 256, size=(1200, 1200, 3), dtype=np.uint8)
    Image.fromarray(large).save(tmp_path / "large.png")
    Image.fromarray(large[:9, :9]).save(tmp_path / "small.png")
    num = stream.BATCHES_PER_TASK
    uris = [str(tmp_path / "large.png")] * num + [str(tmp_path / "small.png")] * num
    item = group(uris, np.linspace(-1, 1, 4 * num).reshape(-1, 2).tolist(), [-1] * 2 * num)
    task = GradaTask(RUN)
    shares = [Share([(item, window)] * (4 if window[0] < num else 1), 1) for window in task.windows(item)]
    gold = [batch.gold[0, 0, :2].tolist() for batch in ImageLoader(0.25)(task, shares, CPU)]
    assert np.array(gold) == pytest.approx(item.gold, abs=1e-6)


def test_a_broken_picture_is_left_out_of_the_loss_and_said_once(
    local_ray: str, pictures: Pictures, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    good = read_manifest(pictures.development)[0]
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(good.uris[0]).read_bytes()[:200])
    item = replace(good, uris=[good.uris[0], str(cut), good.uris[2], *good.uris[3:]])
    task, loader = GradaTask(RUN), ImageLoader(0.25)
    share = Share([(item, w) for w in task.windows(item)[:4]], 1)
    for _ in range(2):
        (batch,) = loader(task, [share], CPU)
    assert batch.annotated.flatten().tolist() == [True, False, True, True]
    assert batch.gold[1].isnan().all() and (batch.inputs["crops"][1] == 0).all()
    (whole,) = load_here(task, [Share([(good, w) for w in task.windows(good)[:4]], 1)], CPU)
    keep = torch.tensor([0, 2, 3])
    assert torch.equal(batch.inputs["crops"][keep], whole.inputs["crops"][keep])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"left out: {cut}: ")
    with pytest.raises(ImageError, match=r"cut\.png"):
        task.example(item, (1, 2))
    prediction = torch.randn(4, 1, 10)
    kept = task.loss(batch.gold[keep], prediction[keep], batch.annotated[keep])
    assert task.loss(batch.gold, prediction, batch.annotated).item() == pytest.approx(kept.item(), rel=1e-6)


def test_of_many_broken_pictures_some_are_named_and_all_are_counted(
    local_ray: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    count = MAX_NAMED + 4
    item = group([str(tmp_path / f"{i}.png") for i in range(count)], [[0.0, 0.0]] * count, [-1] * count)
    task = GradaTask(RUN)
    shares = [Share([(item, w)], 1) for w in task.windows(item)]
    loader = ImageLoader(0.25)
    assert not any(bool(batch.annotated.any()) for batch in loader(task, shares, CPU))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[1].strip() for line in lines[:MAX_NAMED]] == [str(uri) for uri in item.uris[:MAX_NAMED]]
    assert len(lines) == MAX_NAMED and loader.num_broken == count


def test_training_goes_on_without_the_pictures_that_are_broken(
    local_ray: str, pictures: Pictures, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    wild = read_manifest(pictures.wild)
    gone = replace(wild[0], uris=[str(tmp_path / f"gone{i}.png") for i in range(2)] + list(wild[0].uris[2:]))
    run = replace(RUN, fit=replace(RUN.fit, max_epochs=1))
    train_encoder(run, [gone, *wild[1:]], read_manifest(pictures.development), [], str(tmp_path / "encoder"))
    assert grada.load(tmp_path / "encoder").shape == RUN.shape
    (epoch,) = json.loads((tmp_path / "encoder" / "history.json").read_text())
    assert math.isfinite(epoch["loss"]) and epoch["skipped"] == 0
    out = capsys.readouterr().out
    assert [out.count(f"gone{i}.png: ") for i in range(2)] == [1, 1]


def test_pictures_that_are_all_broken_make_no_encoder(local_ray: str, pictures: Pictures, tmp_path: Path):
    gone = [replace(item, uris=["/nowhere/x.png"] * len(item.uris)) for item in read_manifest(pictures.wild)]
    out = tmp_path / "encoder"
    with pytest.raises(ValueError, match="not one batch holds anything"):
        train_encoder(RUN, gone, read_manifest(pictures.development), [], str(out))
    assert not (out / "config.json").exists()


def test_broken_pictures_are_not_scored(local_ray: str, pictures: Pictures, tmp_path: Path):
    development = read_manifest(pictures.development)
    gone = replace(development[0], uris=["/nowhere/x.png"] * 3 + list(development[0].uris[3:]))
    run = replace(RUN, fit=replace(RUN.fit, max_epochs=1))
    out = tmp_path / "encoder"
    train_encoder(run, read_manifest(pictures.wild), [gone, *development[1:]], [], str(out))
    report = json.loads((out / "report.json").read_text())
    assert report["development"]["trained"]["score"]["num_frames"] == 16 - 3
