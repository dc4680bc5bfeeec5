"""Training the frame encoder on generated pictures: the job's results, its checks, and how models are judged."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from affect.concordance import ccc
from affect.corpus.images import read_manifest
from affect.face import encoder_scores, grada
from affect.face.encoder_scores import judge
from affect.face.encoder_task import GradaTask
from affect.face.grada import Encoded, Grada
from affect.learning.batches import load_here
from affect.pipeline import encoder
from affect.pipeline.encoder import train_encoder, train_on
from affect.settings.names import EXPRESSIONS
from affect.settings.training import Workers
from affect.trained.training import EncoderTraining
from tests.pictures import NO_AUGMENT, RUN, Pictures, group, make_pictures

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return make_pictures(tmp_path_factory.mktemp("pictures"))


@dataclass(frozen=True)
class Trained:
    """A trained encoder's folder, its parent, and the lines that the job printed."""

    folder: str
    runs: str
    output: str


@pytest.fixture(scope="module")
def trained(pictures: Pictures, local_ray: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The tiny encoder, trained in this process."""
    runs, lines = str(tmp_path_factory.mktemp("runs")), []
    with pytest.MonkeyPatch.context() as patch:
        for module in (encoder, encoder_scores):
            patch.setattr(module, "say", lines.append)
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
    assert "pictures 48 training, 16 development, 24 held out" in trained.output
    assert "development people (selected on it), before -> after training" in trained.output
    assert "held-out people, before -> after training" in trained.output
    report = json.loads(Path(trained.folder, "report.json").read_text())["held_out"]
    before, after = (report[name]["expression_loss"] for name in ("untrained", "trained"))
    assert f"expression cross-entropy {before:.3f} -> {after:.3f}" in trained.output


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
        (replace(RUN, augment=NO_AUGMENT), images, development, held_out),
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
    jobs: list[EncoderTraining] = []
    monkeypatch.setattr("affect.pipeline.graph.train_encoder", jobs.append)
    wild = read_manifest(pictures.wild)
    train_encoder(RUN, [*wild, *wild], read_manifest(pictures.development), [], "nowhere")
    assert len(jobs) == 1 and len(jobs[0].training) == 8


@pytest.mark.parametrize("labels", ["affect", "expression"])
def test_nothing_to_select_an_epoch_on_is_an_error(labels: str, pictures: Pictures, local_ray: str, tmp_path: Path):
    sets = (pictures.wild, pictures.lab) if labels == "affect" else ("", pictures.development)
    items = [read_manifest(uri) if uri else [] for uri in sets]
    with pytest.raises(ValueError, match=r"nothing to (learn from|select on)"):
        train_encoder(RUN, *items, [], str(tmp_path / "encoder"))
    assert not (tmp_path / "encoder" / "config.json").exists()


def test_a_weight_of_a_dataset_that_is_not_there_is_an_error(local_ray: str, pictures: Pictures, tmp_path: Path):
    run = replace(RUN, dataset_weights={"wlid": 2.0})
    with pytest.raises(ValueError, match="dataset_weights of wlid: training has wild"):
        train_encoder(run, read_manifest(pictures.wild), read_manifest(pictures.development), [], str(tmp_path))


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
        augment=NO_AUGMENT,
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
