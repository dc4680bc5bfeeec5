"""Training the frame encoder on a folder of generated pictures whose colours say what a person feels."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from affect.concordance import ccc
from affect.corpus.images import ImageError, Images, read_manifest
from affect.face import grada
from affect.face.crop import letterbox
from affect.face.encoder_task import GradaTask
from affect.face.grada import Encoded, Grada
from affect.learning.batches import Batch, Share, Task, load_here
from affect.learning.fit import fit
from affect.pipeline import encoder, stream
from affect.pipeline.encoder import MAX_NAMED, ImageLoader, judge, train_encoder, train_on
from affect.settings.encoder import CropAugment, EncoderRun, GradaShape
from affect.settings.names import EXPRESSIONS
from affect.settings.training import Fit, Loss, Workers

CPU = torch.device("cpu")
SIDE = 24
STILL = CropAugment(
    mirror=0.0,
    turn_deg=0.0,
    scale=0.0,
    shift=0.0,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    grey=0.0,
    erase=0.0,
)
RUN = EncoderRun(
    name="tiny",
    shape=GradaShape(width=0.1, depth=0.1, embedding=8, crop_px=SIDE),
    trunk_learning_rate=1e-2,
    augment=replace(STILL, mirror=0.5),
    fit=Fit(
        learning_rate=1e-2,
        batch_size=8,
        max_epochs=12,
        stop_patience=12,
        clip_norm=1.0,
        loss=Loss(ccc_over="batch", error_weight=1.0, min_points=4),
    ),
    workers=Workers(loader_cpus=0.25),
)


@dataclass(frozen=True)
class Pictures:
    """Manifests of the generated pictures."""

    wild: str
    lab: str
    development: str
    held_out: str


def draw_people(folder: Path, name: str, people: Sequence[str], labels: str, seed: int) -> str:
    """Eight pictures of each person, red for valence and blue for arousal on the person's own noise, and a manifest.

    Args:
        folder: gets the pictures.
        name: the manifest's file; its first part is the dataset.
        people: who.
        labels: ``affect``, ``expression`` or ``both``.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for person in people:
        skin = rng.integers(0, 60, size=(SIDE, SIDE, 3))
        for number in range(8):
            valence, arousal = rng.uniform(-1, 1, 2).round(3).tolist()
            feeling = "happiness" if valence > 0.3 else "sadness" if valence < -0.3 else "neutral"
            color = 95 + 95 * np.array([valence, 0.0, arousal])
            path = f"{person}_{number}.png"
            Image.fromarray((skin + color).clip(0, 255).astype(np.uint8)).save(folder / path)
            has_affect = labels == "both" or (labels == "affect" and number < 7)
            has_expression = labels != "affect" or number >= 6
            rows.append(
                {
                    "path": path,
                    "dataset": name.partition(".")[0],
                    "expression": feeling if has_expression else None,
                    "valence": valence if has_affect else None,
                    "arousal": arousal if has_affect else None,
                    "person": person,
                }
            )
    table, path = pa.Table.from_pylist(rows), folder / name
    (pyarrow.parquet.write_table if path.suffix == ".parquet" else pyarrow.csv.write_csv)(table, path)
    return str(path)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """Six people of two datasets to learn from, one labelled with valence and arousal, one with expressions."""
    folder = tmp_path_factory.mktemp("pictures")
    return Pictures(
        wild=draw_people(folder, "wild.csv", ["ann", "bob", "cem", "dee"], "affect", 0),
        lab=draw_people(folder, "lab.parquet", ["eva", "fay"], "expression", 1),
        development=draw_people(folder, "development.csv", ["gus", "hal"], "both", 2),
        held_out=draw_people(folder, "unseen.parquet", ["ida", "jon", "kim"], "both", 3),
    )


@dataclass(frozen=True)
class Trained:
    """An encoder with what the job said."""

    folder: str
    runs: str
    said: str


@pytest.fixture(scope="module")
def trained(pictures: Pictures, local_ray: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The tiny encoder, trained in this process."""
    runs, lines = str(tmp_path_factory.mktemp("runs")), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "say", lines.append)
        folder = train_on(RUN, [pictures.wild, pictures.lab], [pictures.development], [pictures.held_out], runs)
    return Trained(folder, runs, "\n".join(lines))


def test_the_encoder_learns_both_tasks_and_does_better_than_a_random_one_on_unseen_people(trained: Trained):
    report = json.loads(Path(trained.folder, "report.json").read_text())
    assert report.keys() == {"development", "held_out", "left_out"} and report["left_out"] == 0
    for name, people in (("development", 2), ("held_out", 3)):
        before, after = report[name]["untrained"], report[name]["trained"]
        assert after["affect_loss"] < 0.6 * before["affect_loss"]
        assert after["expression_loss"] < 0.7 * before["expression_loss"]
        assert after["macro_f1"] > before["macro_f1"]
        assert after["score"]["ccc"][2] > 0.5 > before["score"]["ccc"][2] + 0.2
        assert after["score"]["num_units"] == people and after["score"]["num_frames"] == 8 * people


def test_the_history_has_every_epoch_and_the_report_the_best_of_them(trained: Trained):
    history = json.loads(Path(trained.folder, "history.json").read_text())
    assert [epoch["epoch"] for epoch in history] == list(range(1, 1 + RUN.fit.max_epochs))
    assert history[-1]["loss"] < 0.8 * history[0]["loss"] and all(epoch["skipped"] == 0 for epoch in history)
    report = json.loads(Path(trained.folder, "report.json").read_text())
    best = max(epoch["ccc"][2] for epoch in history)
    assert report["development"]["trained"]["score"]["ccc"][2] == pytest.approx(best, abs=1e-5)


def test_the_job_says_how_many_pictures_it_has_and_what_it_learned(trained: Trained):
    assert "pictures 48 training, 16 development, 24 held out" in trained.said
    assert "development people (selected on it), before -> after training" in trained.said
    assert "held-out people, before -> after training" in trained.said
    report = json.loads(Path(trained.folder, "report.json").read_text())["held_out"]
    before, after = (report[name]["expression_loss"] for name in ("untrained", "trained"))
    assert f"expression cross-entropy {before:.3f} -> {after:.3f}" in trained.said


def test_the_checkpoint_can_be_loaded_and_scores_what_the_report_says(trained: Trained, pictures: Pictures):
    model = grada.load(Path(trained.folder))
    assert model.shape == RUN.shape and not model.training
    judged = judge(GradaTask(RUN), model, read_manifest(pictures.held_out), CPU, load_here)
    report = json.loads(Path(trained.folder, "report.json").read_text())["held_out"]["trained"]
    assert judged.affect_loss == pytest.approx(report["affect_loss"], abs=1e-4)
    assert judged.expression_loss == pytest.approx(report["expression_loss"], abs=1e-4)
    assert judged.macro_f1 == pytest.approx(report["macro_f1"])
    assert judged.score is not None
    assert judged.score.ccc == pytest.approx(report["score"]["ccc"], abs=1e-4)


def test_training_again_does_nothing(trained: Trained, pictures: Pictures, capsys: pytest.CaptureFixture[str]):
    def state() -> list[tuple[str, int]]:
        return sorted((str(p), p.stat().st_mtime_ns) for p in Path(trained.runs).rglob("*") if p.is_file())

    before = state()
    images, development, held_out = [pictures.wild, pictures.lab], [pictures.development], [pictures.held_out]
    for run in (RUN, replace(RUN, workers=Workers(num_workers=2))):
        assert train_on(run, images, development, held_out, trained.runs) == trained.folder
    assert state() == before and any(path.endswith("config.json") for path, _ in before)
    use = f"grada: use it with --face.weights {trained.folder} --face.crop-px {RUN.shape.crop_px}\n"
    assert capsys.readouterr().out == 2 * (f"train grada: there already, {trained.folder}\n" + use)


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folders of encoders that would be trained now; none is."""
    found: list[str] = []
    monkeypatch.setattr(encoder, "train_encoder", lambda *args: found.append(args[-1]))
    return found


def test_what_changes_the_encoder_gives_another_folder(folders: list[str], pictures: Pictures, tmp_path: Path):
    torch.manual_seed(0)
    for name in ("one", "two"):
        state = Grada(RUN.shape).trunk[0].state_dict()
        save_file({f"features.{key}": value for key, value in state.items()}, tmp_path / f"{name}.safetensors")
    images, development, held_out = [pictures.wild, pictures.lab], [pictures.development], [pictures.held_out]
    variants = [
        (RUN, images, development, held_out),
        (replace(RUN, fit=replace(RUN.fit, seed=1)), images, development, held_out),
        (replace(RUN, augment=STILL), images, development, held_out),
        (replace(RUN, dataset_weights={"wild": 2.0}), images, development, held_out),
        (replace(RUN, trunk=str(tmp_path / "one.safetensors")), images, development, held_out),
        (replace(RUN, trunk=str(tmp_path / "two.safetensors")), images, development, held_out),
        (RUN, [pictures.wild], development, held_out),
        (RUN, images, held_out, development),
        (RUN, images, development, []),
    ]
    for run, *sets in variants:
        train_on(run, *sets, str(tmp_path))
    assert len(set(folders)) == len(variants)
    assert all(Path(folder).parent == tmp_path / "grada" for folder in folders)


def test_another_content_of_a_manifest_gives_another_folder(folders: list[str], pictures: Pictures, tmp_path: Path):
    path = Path(pictures.wild).with_name("copy.csv")
    content = Path(pictures.wild).read_text()
    for text in (content, content.replace("ann_0.png", "ann_1.png"), content):
        path.write_text(text)
        train_on(RUN, [str(path)], [pictures.development], [], str(tmp_path))
    path.unlink()
    assert folders[0] == folders[2] != folders[1]


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (("wild", "wild", "held_out"), "person wild/ann is in the training set and in the development set"),
        (("wild", "development", "wild"), "person wild/ann is in the training set and in the held out set"),
        (
            ("wild", "development", "development"),
            "person development/gus is in the development set and in the held out",
        ),
    ],
)
def test_a_person_in_two_sets_is_an_error_before_anything_is_trained(
    sets: tuple[str, str, str], message: str, pictures: Pictures, tmp_path: Path
):
    uris = [[getattr(pictures, name)] for name in sets]
    with pytest.raises(ValueError, match=message):
        train_on(RUN, *uris, str(tmp_path))
    assert not any(tmp_path.rglob("*"))


def test_a_persons_pictures_may_lie_in_two_manifests_of_one_set(
    local_ray: str, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
):
    jobs: list[dict[str, Any]] = []
    monkeypatch.setattr(encoder, "on_workers", lambda train, job, *rest: jobs.append(job))
    wild = read_manifest(pictures.wild)
    train_encoder(RUN, [*wild, *wild], read_manifest(pictures.development), [], "nowhere")
    assert len(jobs) == 1 and len(jobs[0]["training"]) == 8


@pytest.mark.parametrize("labels", ["affect", "expression"])
def test_nothing_to_select_an_epoch_on_is_an_error(labels: str, pictures: Pictures, local_ray: str, tmp_path: Path):
    sets = (pictures.wild, pictures.lab) if labels == "affect" else ("", pictures.development)
    items = [read_manifest(uri) if uri else [] for uri in sets]
    with pytest.raises(ValueError, match=r"nothing to (learn from|select on)"):
        train_encoder(RUN, *items, [], str(tmp_path / "encoder"))
    assert not (tmp_path / "encoder" / "config.json").exists()


def group(uris: Sequence[str], gold: Sequence[Sequence[float]], expression: Sequence[int], name: str = "d/p") -> Images:
    """Whole pictures of a person."""
    return Images(
        name=name,
        dataset=name.partition("/")[0],
        uris=list(uris),
        box=np.full((len(uris), 4), np.nan),
        expression=np.array(expression, dtype=np.int64),
        gold=np.array(gold, dtype=np.float64).reshape(-1, 2),
    )


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
    assert kept is not None and task.loss(batch.gold, prediction, batch.annotated) == kept


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


def test_a_weight_of_a_dataset_that_is_not_there_is_an_error(local_ray: str, pictures: Pictures, tmp_path: Path):
    run = replace(RUN, dataset_weights={"wlid": 2.0})
    with pytest.raises(ValueError, match="dataset_weights of wlid: training has wild"):
        train_encoder(run, read_manifest(pictures.wild), read_manifest(pictures.development), [], str(tmp_path))


class Counting:
    """Loads in this process and counts the training pictures of every dataset and epoch."""

    def __init__(self) -> None:
        self.epochs: list[Counter[str]] = []
        self.pictures: list[Counter[str]] = []

    def __call__(self, task: Task, shares: Sequence[Share], device: torch.device) -> Iterator[Batch]:
        samples = [(item, window) for share in shares for item, window in share.samples]
        self.epochs.append(Counter(item.dataset for item, _ in samples))
        self.pictures.append(Counter(item.uris[start] for item, (start, _) in samples))
        return load_here(task, shares, device)


def counts(pictures: Pictures, weights: dict[str, float], epochs: int = 1) -> Counting:
    """What two datasets, of 32 and 16 pictures, are seen in epochs with weights."""
    run = replace(RUN, dataset_weights=weights, fit=replace(RUN.fit, max_epochs=epochs))
    counting, items = Counting(), read_manifest(pictures.wild) + read_manifest(pictures.lab)
    fit(GradaTask(run), items, read_manifest(pictures.development), device=CPU, loader=counting)
    assert all(seen == {"development": 16} for seen in counting.epochs[1::2])  # weights are of the training
    counting.epochs, counting.pictures = counting.epochs[::2], counting.pictures[::2]
    return counting


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({}, {"wild": 32, "lab": 16}),
        ({"elsewhere": 5.0}, {"wild": 32, "lab": 16}),
        ({"lab": 0.0}, {"wild": 32}),
        ({"wild": 0.0, "lab": 2.0}, {"lab": 32}),
        ({"wild": 2.0}, {"wild": 64, "lab": 16}),
        ({"wild": 1.0, "lab": 3.0}, {"wild": 32, "lab": 48}),
    ],
)
def test_a_whole_weight_is_how_often_each_picture_of_a_dataset_is_seen_in_every_epoch(
    weights: dict[str, float], expected: dict[str, int], pictures: Pictures
):
    seen = counts(pictures, weights, epochs=2)
    assert seen.epochs == [expected, expected]
    for dataset, manifest in (("wild", pictures.wild), ("lab", pictures.lab)):
        for uri in (uri for item in read_manifest(manifest) for uri in item.uris):
            assert seen.pictures[0][uri] == weights.get(dataset, 1.0)


def test_the_broken_part_of_a_weight_is_drawn_anew_in_every_epoch(pictures: Pictures):
    seen = counts(pictures, {"wild": 0.5, "lab": 1.25}, epochs=3)
    for pictures_seen, datasets in zip(seen.pictures, seen.epochs, strict=True):
        assert 6 <= datasets["wild"] <= 26 and 16 <= datasets["lab"] <= 28
        assert set(pictures_seen.values()) <= {1, 2}
    assert len({tuple(sorted(one.items())) for one in seen.pictures}) == 3


def test_a_face_is_cut_out_by_its_grown_box_and_without_one_the_whole_picture_is_taken(tmp_path: Path):
    rgb = np.random.default_rng(0).integers(0, 256, size=(32, 64, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    item = group([str(tmp_path / "a.png")] * 3, [[0.5, -0.5], [np.nan, np.nan], [0.1, 0.2]], [-1, 4, 0])
    box = np.array([[10.0, 5.0, 26.0, 21.0], [np.nan] * 4, [56.0, 0.0, 64.0, 8.0]])
    task = GradaTask(replace(RUN, box_growth=0.125))
    examples = [task.example(replace(item, box=box), (i, i + 1)) for i in range(3)]
    shares = [[8 / 64, 3 / 32, 28 / 64, 23 / 32], [0.0, 0.0, 1.0, 1.0], [55 / 64, 0.0, 1.0, 9 / 32]]
    for example, share in zip(examples, shares, strict=True):
        expected = letterbox(rgb, np.array([share]), SIDE)[0]
        assert np.array_equal(example.whole["crops"], expected)
        assert example.annotated.tolist() == [True]
    gold = np.concatenate([example.gold for example in examples])
    assert np.array_equal(gold, [[0.5, -0.5, np.nan], [np.nan, np.nan, 4.0], [0.1, 0.2, 0.0]], equal_nan=True)


def test_trunk_and_heads_learn_at_their_own_rates_and_every_parameter_at_one():
    task = GradaTask(RUN)
    model = task.build()
    heads, trunk = task.parameter_groups(model)
    assert (heads["lr"], trunk["lr"]) == (RUN.fit.learning_rate, RUN.trunk_learning_rate)
    assert {id(p) for p in trunk["params"]} == {id(p) for n, p in model.named_parameters() if n.startswith("trunk.")}
    listed = [id(p) for part in (heads, trunk) for p in part["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())


def test_a_trunk_from_a_file_is_where_training_starts(tmp_path: Path):
    torch.manual_seed(5)
    source = Grada(RUN.shape)
    path = tmp_path / "trunk.safetensors"
    save_file({f"features.{name}": value for name, value in source.trunk[0].state_dict().items()}, path)
    built = GradaTask(replace(RUN, trunk=str(path))).build()
    assert all(torch.equal(built.trunk[0].state_dict()[n], v) for n, v in source.trunk[0].state_dict().items())
    assert not torch.equal(built.affect.weight, source.affect.weight)


def reference_losses(gold: Any, predicted: Any, annotated: Any, loss: Loss) -> tuple[float | None, float | None]:
    """Both losses, point by point in float64, from lists of points."""
    points = [(g, p) for g, p, there in zip(gold, predicted, annotated, strict=True) if there]
    pairs = [(g[:2], p[:2]) for g, p in points if not math.isnan(g[0])]
    classes = [(int(g[2]), p[2:]) for g, p in points if not math.isnan(g[2])]
    affect = expression = None
    if pairs:
        affect = sum((p[d] - g[d]) ** 2 for g, p in pairs for d in range(2)) / (2 * len(pairs))
        if len(pairs) >= loss.min_points:
            agreement = []
            for d in range(2):
                x, y = [g[d] for g, _ in pairs], [p[d] for _, p in pairs]
                mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
                var_x = math.fsum((a - mean_x) ** 2 for a in x) / len(x)
                var_y = math.fsum((b - mean_y) ** 2 for b in y) / len(y)
                cov = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / len(x)
                agreement.append(2 * cov / (var_x + var_y + (mean_x - mean_y) ** 2 + 1e-8))
            weights = (loss.valence_weight, loss.arousal_weight)
            missing = sum(w * (1 - c) for w, c in zip(weights, agreement, strict=True)) / sum(weights)
            affect = missing + loss.error_weight * affect
    if classes:
        entropy = [math.log(math.fsum(math.exp(v) for v in logits)) - logits[number] for number, logits in classes]
        expression = math.fsum(entropy) / len(entropy)
    return affect, expression


@st.composite
def points(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Random gold with NaNs, predictions and what counts, of a batch of single pictures."""
    num = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    gold = np.concatenate([rng.uniform(-1, 1, (num, 2)), rng.integers(0, len(EXPRESSIONS), (num, 1))], axis=1)
    gold[rng.random(num) < draw(st.sampled_from([0.0, 0.4, 1.0])), :2] = np.nan
    gold[rng.random(num) < draw(st.sampled_from([0.0, 0.4, 1.0])), 2] = np.nan
    predicted = rng.normal(size=(num, 2 + len(EXPRESSIONS)))
    annotated = rng.random(num) > draw(st.sampled_from([0.0, 0.3, 1.0]))
    return torch.tensor(gold)[:, None], torch.tensor(predicted)[:, None], torch.tensor(annotated)[:, None]


WEIGHED = replace(
    RUN,
    affect_weight=0.7,
    expression_weight=1.5,
    fit=replace(
        RUN.fit, loss=Loss(valence_weight=0.7, arousal_weight=0.3, ccc_over="batch", error_weight=0.5, min_points=4)
    ),
)


@settings(deadline=None)
@given(batch=points())
def test_the_losses_are_those_of_the_labelled_pictures_worked_out_one_by_one(batch: tuple[Tensor, Tensor, Tensor]):
    task = GradaTask(WEIGHED)
    plain = [value[:, 0].tolist() for value in batch]
    expected = reference_losses(*plain, WEIGHED.fit.loss)
    got = task.losses(*batch)
    for value, reference in zip(got, expected, strict=True):
        assert float(value) == pytest.approx(reference or 0.0, rel=1e-5, abs=1e-5)
    parts = [w * r for w, r in zip((0.7, 1.5), expected, strict=True) if r is not None]
    assert float(task.loss(*batch)) == pytest.approx(sum(parts), rel=1e-5, abs=1e-5)


@settings(deadline=None)
@given(batch=points())
def test_what_is_not_labelled_has_no_part_in_the_loss_nor_in_its_gradient(batch: tuple[Tensor, Tensor, Tensor]):
    gold, predicted, annotated = batch
    task, predicted = GradaTask(WEIGHED), predicted.requires_grad_()
    loss = task.loss(gold, predicted, annotated)
    loss.backward()
    assert predicted.grad is not None and predicted.grad.isfinite().all()
    labelled = annotated[..., None] & ~torch.cat([gold[..., :2], gold[..., 2:].expand(-1, -1, 8)], dim=2).isnan()
    assert (predicted.grad[~labelled] == 0).all()
    other = torch.where(labelled, predicted.detach(), 1e3)
    again = task.loss(gold, other, annotated)
    assert float(again) == pytest.approx(float(loss.detach()), rel=1e-9)


class Reader(nn.Module):
    """Reads valence and arousal, and one of two expressions, off a crop's colour."""

    def forward(self, crops: Tensor) -> Encoded:
        """Red and blue are valence and arousal, green above a half is anger, below it neutral."""
        std, mean = torch.tensor([0.229, 0.224, 0.225]), torch.tensor([0.485, 0.456, 0.406])
        color = crops.mean(dim=(2, 3)) * std + mean  # (B, 3), shares of full scale
        logits = torch.full((len(crops), len(EXPRESSIONS)), -20.0)
        logits[:, 0], logits[:, 1] = 10 * (0.5 - color[:, 1]), 10 * (color[:, 1] - 0.5)
        return Encoded(color, logits, 2 * color[:, [0, 2]] - 1)


def test_a_model_is_judged_by_ccc_over_all_pictures_and_by_the_mean_f1_of_expressions_that_occur(tmp_path: Path):
    rng = np.random.default_rng(0)
    gold, said = rng.uniform(-1, 1, (10, 2)), rng.integers(0, 256, (10, 3))
    said[:, 1] = [0, 0, 0, 255, 255, 255, 255, 0, 255, 0]  # neutral, neutral, neutral, anger, ...
    expression = [0, 0, 1, 1, 1, 0, 2, -1, -1, 2]
    gold[3] = gold[8] = np.nan
    for number, color in enumerate(said):
        Image.new("RGB", (8, 8), tuple(color.tolist())).save(tmp_path / f"{number}.png")
    uris = [str(tmp_path / f"{i}.png") for i in range(10)]
    edges = [(0, 4), (4, 9), (9, 10)]
    items = [group(uris[a:b], gold[a:b], expression[a:b], f"d/{a}") for a, b in edges]
    judged = judge(GradaTask(RUN), Reader(), items, CPU, load_here)
    assert judged.score is not None
    predicted = 2 * said[:, [0, 2]] / 255 - 1
    expected = ccc(gold, predicted)
    assert judged.score.ccc == pytest.approx([*expected, expected.mean()], abs=1e-5)
    assert (judged.score.num_units, judged.score.num_frames) == (3, 8)
    # neutral: 2 of 3 found, 4 said of 8; anger: 2 of 3 found, 4 said; disgust: never found
    assert judged.macro_f1 == pytest.approx((2 * 2 / (3 + 4) + 2 * 2 / (3 + 4) + 0) / 3)
    wrong = np.nanmean((gold - predicted) ** 2)
    assert judged.affect_loss == pytest.approx(1 - expected.mean() + wrong, abs=1e-5)
    logits = np.full((10, 8), -20.0)
    logits[:, 0], logits[:, 1] = 10 * (0.5 - said[:, 1] / 255), 10 * (said[:, 1] / 255 - 0.5)
    entropy = [np.log(np.exp(row).sum()) - row[e] for row, e in zip(logits, expression, strict=True) if e >= 0]
    assert judged.expression_loss == pytest.approx(np.mean(entropy), rel=1e-5)


def test_what_nothing_is_labelled_with_is_not_judged(tmp_path: Path):
    Image.new("RGB", (8, 8), (200, 255, 100)).save(tmp_path / "a.png")
    uris, task = [str(tmp_path / "a.png")] * 2, GradaTask(RUN)
    feelings = judge(task, Reader(), [group(uris, [[np.nan, np.nan]] * 2, [1, 1])], CPU, load_here)
    assert math.isnan(feelings.affect_loss) and feelings.score is None and feelings.macro_f1 == 1.0
    numbers = judge(task, Reader(), [group(uris, [[0.1, 0.2], [0.3, 0.4]], [-1, -1])], CPU, load_here)
    assert math.isnan(numbers.expression_loss) and math.isnan(numbers.macro_f1) and numbers.score is not None


@pytest.mark.slow
def test_two_workers_learn_what_one_process_learns(trained: Trained, pictures: Pictures, tmp_path: Path):
    """Batch normalisation and the moving average of weights included; 48 pictures are three batches of sixteen.

    A constant that is added before a normalisation has rounding for a gradient, of which AdamW makes full steps: they
    change nothing in training, where losses agree to 1e-7, but the running statistics by 1e-4 of a CCC. Without batch
    normalisation over both shares losses differ by 0.1 and CCCs by 0.02.
    """
    trunk = tmp_path / "trunk.safetensors"
    features = grada.load(Path(trained.folder)).trunk[0].state_dict()
    save_file({f"features.{name}": value for name, value in features.items()}, trunk)
    run = replace(
        RUN,
        shape=replace(RUN.shape, dropout=0.0),
        trunk=str(trunk),
        augment=STILL,
        trunk_learning_rate=3e-4,
        fit=replace(RUN.fit, learning_rate=3e-4, batch_size=16, max_epochs=3, ema_decay=0.5),
    )
    sets = ([pictures.wild, pictures.lab], [pictures.development], [pictures.held_out])
    found = []
    for name, workers in (("one", Workers()), ("two", Workers(num_workers=2, num_cpus=0.25))):
        folder = train_on(replace(run, workers=workers), *sets, str(tmp_path / name))
        found.append([json.loads(Path(folder, file).read_text()) for file in ("history.json", "report.json")])
    (history, report), (shared, shared_report) = found
    assert len(history) == len(shared) == 3
    for one, other in zip(history, shared, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=1e-5)
        assert other["ccc"] == pytest.approx(one["ccc"], abs=1e-3)
    assert history[0]["loss"] - history[-1]["loss"] > 0.01 and history[-1]["ccc"][2] > 0.1
    for kind in ("untrained", "trained"):
        one, other = (part["held_out"][kind] for part in (report, shared_report))
        for what in ("affect_loss", "expression_loss"):
            assert other[what] == pytest.approx(one[what], abs=2e-3)
        assert other["score"]["ccc"] == pytest.approx(one["score"]["ccc"], abs=1e-3)
