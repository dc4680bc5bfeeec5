"""The zero-shot rating: against plain passes of the whole model, in rows, at frames, and in the linear map."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from affect.behavior import checkpoint
from affect.behavior.checkpoint import SegmentFrames
from affect.behavior.clip import BehaviorClip
from affect.behavior.prompt import PROMPTS, QUESTIONS, Prompt, questions_of_prompts
from affect.behavior.qwen import Qwen, States
from affect.console import tiny
from affect.corpus import video
from affect.corpus.clip import Clip
from affect.corpus.track import Segments
from affect.fusion.linear_task import LinearTask
from affect.learning import batches
from affect.modalities import KINDS, MODALITIES
from affect.modality import Evidence
from affect.settings.extraction import Behavior, Grid
from affect.settings.models import Linear
from affect.settings.run import Run
from affect.storage import schema
from affect.storage.attempts import Parts
from affect.storage.extracted import Part
from affect.storage.store import Store
from affect.timeline import Timestamps
from affect.tracks import tables
from affect.tracks.synthetic import make_track
from affect.trained.models import check_untrained
from affect.weights import WeightsError
from tests.media import Film, write

pytestmark = pytest.mark.numeric

PLAIN = 1e-5
"""Largest difference from a plain pass, absolute; ratings and states are of the order of 1."""
TEXTS = list(PROMPTS.values())
SMALL = {"min_frame_pixels": 8_192, "max_frame_pixels": 32_768, "micro_batch": 2}


def shown(frames: int, seed: int, width: int = 64, height: int = 64) -> SegmentFrames:
    pictures = np.random.default_rng(seed).integers(0, 256, size=(frames, height, width, 3), dtype=np.uint8)
    return SegmentFrames(pictures, np.arange(frames) / 4)


SEGMENTS = [shown(16, 1), shown(4, 2, 96), shown(7, 3, 64, 128), shown(1, 4)]


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint whose head is its embedding."""
    path = tmp_path_factory.mktemp("tied")
    tiny.make_qwen(path)
    return path


@pytest.fixture(scope="module")
def untied(tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That checkpoint with a head of its own, of which the answers are far apart."""
    path = tmp_path_factory.mktemp("untied") / "qwen"
    shutil.copytree(tied, path)
    config = json.loads((path / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    (path / "config.json").write_text(json.dumps(config))
    tensors = load_file(path / "model.safetensors")
    shape = tensors["model.language_model.embed_tokens.weight"].shape
    tensors["lm_head.weight"] = 0.2 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    return path


@pytest.fixture(scope="module", params=["tied", "untied"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def rater(folder: Path) -> Qwen:
    return Qwen(Behavior(weights=str(folder), rate=True), TEXTS, questions=questions_of_prompts())


def plain(model: Any, qwen: Qwen, segment: SegmentFrames, prompt: Prompt) -> list[float]:
    """Valence and arousal from all logits of the whole model: one segment, one question, no cache."""
    tokenizer = qwen._checkpoint.processor.tokenizer
    digits = [tokenizer.convert_tokens_to_ids(str(digit)) for digit in range(1, 10)]
    found = []
    for question in QUESTIONS[prompt]:
        inputs = qwen._checkpoint.inputs([segment], [qwen._checkpoint.chat(question)])
        with torch.inference_mode():
            logits = model(**inputs, use_cache=False).logits[0, -1].double()
        weights = [float(logits[token].exp()) for token in digits]
        mean = sum(digit * weight for digit, weight in enumerate(weights, 1)) / sum(weights)
        found.append((mean - 5) / 4)
    return found


def test_ratings_are_those_of_a_plain_pass_and_leave_the_states_as_they_were(folder: Path):
    from transformers import AutoModelForImageTextToText

    whole = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    qwen, silent = rater(folder), Qwen(Behavior(weights=str(folder)), TEXTS)
    ratings = []
    for prompts in (["neutral"], ["neutral", "left", "right"], ["right"]):
        texts = [PROMPTS[prompt] for prompt in prompts]
        together, before = qwen(SEGMENTS, texts), silent(SEGMENTS, texts)
        for i, segment in enumerate(SEGMENTS):
            [alone] = qwen([segment], texts)
            for j, prompt in enumerate(prompts):
                expected = plain(whole, qwen, segment, prompt)
                for found in (alone[j], together[i][j]):
                    assert found.rating == pytest.approx(expected, abs=PLAIN)
                    for value, other in zip(found[:3], before[i][j][:3], strict=True):
                        np.testing.assert_allclose(value, other, atol=PLAIN, rtol=PLAIN)
                assert before[i][j].rating is None
                ratings.append(expected)
    assert np.abs(ratings).max() < 1 and np.ptp(ratings, axis=0).min() > 1e-3
    assert np.abs(np.diff(ratings, axis=1)).min() > 1e-4  # two questions, two answers


def test_the_video_is_read_once_for_the_prompts_and_the_questions(tied: Path, monkeypatch: pytest.MonkeyPatch):
    qwen = rater(tied)
    read: list[tuple[int, int]] = []
    forward = qwen._model.language_model.forward

    def counted(*args: Any, **inputs: Any) -> Any:
        read.append(tuple(inputs["inputs_embeds"].shape[:2]))
        return forward(*args, **inputs)

    monkeypatch.setattr(qwen._model.language_model, "forward", counted)
    qwen(SEGMENTS[:2], TEXTS[:1])
    longest = max(len(text) for text in QUESTIONS["neutral"])
    assert [rows for rows, _ in read] == [2, 4]  # the prompt with the video, then both questions
    assert longest < read[1][1] < longest + 20  # a byte is a token of the tiny tokenizer
    assert not hasattr(qwen._model, "lm_head") and qwen._checkpoint.digit_rows.shape == (9, 64)


def test_a_batch_that_a_gpu_cannot_hold_is_rated_in_halves(tied: Path, monkeypatch: pytest.MonkeyPatch):
    qwen = rater(tied)
    forward, expected = qwen._model.forward, qwen(SEGMENTS, TEXTS[:2])

    def small_memory(*args: Any, **inputs: Any) -> Any:
        if len(inputs["input_ids"]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **inputs)

    monkeypatch.setattr(qwen._model, "forward", small_memory)
    for mine, other in zip(qwen(SEGMENTS, TEXTS[:2]), expected, strict=True):
        for a, b in zip(mine, other, strict=True):
            assert a.micro_batch == 2 and a.rating == pytest.approx(b.rating, abs=PLAIN)


def refused(folder: Path) -> str:
    with pytest.raises(WeightsError) as raised:
        rater(folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_tokenizer_in_which_a_digit_is_not_one_token_is_refused(tied: Path, tmp_path: Path):
    path = tmp_path / "qwen"
    shutil.copytree(tied, path)
    content = json.loads((path / "tokenizer.json").read_text())
    del content["model"]["vocab"]["7"]
    (path / "tokenizer.json").write_text(json.dumps(content))
    if (path / "vocab.json").exists():
        (path / "vocab.json").unlink()
    assert "no single token for the digit 7, which --behavior.rate needs" in refused(path)
    checkpoint.check(Behavior(weights=str(path)), TEXTS)  # states alone need no digits


def test_a_checkpoint_without_the_head_that_it_needs_is_refused(untied: Path, tmp_path: Path):
    path = tmp_path / "qwen"
    shutil.copytree(untied, path)
    tensors = load_file(path / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    assert "it lacks 1 of the model's tensors, as lm_head.weight" in refused(path)
    Qwen(Behavior(weights=str(path)), TEXTS)  # states alone need no head


def test_only_a_run_that_rates_has_another_address(tied: Path):
    run = Run(name="a", behavior=Behavior(weights=str(tied)))
    rates = replace(run, behavior=replace(run.behavior, rate=True))
    assert "rate" not in run.behavior.addressed() and rates.behavior.addressed()["rate"]
    behavior, description = KINDS["behavior"], KINDS["description"]
    assert not any("On a scale from 1" in text for text in behavior.content(run))
    assert sum("On a scale from 1" in text for text in behavior.content(rates)) == 6
    assert behavior.address(run) != behavior.address(rates)
    assert description.address(run) == description.address(rates)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """A clip of three full segments and a tail."""
    film = Film(name="film.mp4", ticks=[40 * i for i in range(230)], size=(256, 128))
    path = write(tmp_path_factory.mktemp("film"), film)
    return Clip(str(path), video.probe(str(path), path.name), 0.0, 60.0, Grid(), ("neutral", "left"))


@pytest.fixture(scope="module")
def stage(untied: Path) -> BehaviorClip:
    return BehaviorClip(Behavior(weights=str(untied), rate=True, **SMALL))


def test_rows_have_a_rating_only_where_the_run_rates(stage: BehaviorClip, untied: Path, clip: Clip):
    table, status, _ = stage(clip)
    assert status == "ok" and table.schema == schema.BEHAVIOR.append(schema.RATING)
    ratings = np.array(table["rating"].to_pylist())
    assert ratings.shape == (8, 2) and (np.abs(ratings) < 1).all() and len(np.unique(ratings)) == 16
    silent = BehaviorClip(Behavior(weights=str(untied), **SMALL))(clip).table
    assert silent.schema == schema.BEHAVIOR
    for name in ("multimodal", "vision"):
        states, other = (np.array(each[name].to_pylist(), dtype=float) for each in (table, silent))
        np.testing.assert_allclose(states, other, atol=5e-3)  # stored in 16 bits


def test_a_clip_goes_on_from_a_stored_part_with_ratings(stage: BehaviorClip, clip: Clip, tmp_path: Path):
    parts: list[Part] = []
    whole = stage(clip, save=parts.append)
    assert len(parts) == 2
    stored = Parts(Store(str(tmp_path)))
    stored.keep("behavior/a.parquet", parts[0])
    rows = MODALITIES["behavior"].rows_of(Run(name="a", behavior=stage._settings))
    begun = stored.load("behavior/a.parquet", rows, attempted=True)
    assert begun is not None and begun.table.num_rows == 4
    assert stage(clip, begun) == whole


def test_a_rating_that_is_not_finite_is_null_and_has_a_reason(
    stage: BehaviorClip, clip: Clip, monkeypatch: pytest.MonkeyPatch
):
    states = stage._model.states

    def spoilt(micro_batch: Any) -> list[list[States]]:
        answers = states(micro_batch)
        answers[1][1] = answers[1][1]._replace(rating=np.array([0.1, np.nan], dtype=np.float32))
        return answers

    monkeypatch.setattr(stage._model, "states", spoilt)
    table, status, reason = stage(clip)
    assert status == "degraded" and reason == "ratings of 2 of 4 segments are not finite: 1, 3"
    missing = [(row["segment"], row["prompt"]) for row in table.to_pylist() if row["rating"] is None]
    assert missing == [(1, "left"), (3, "left")]


def evidence(rows: list[tuple[int, str, list[float] | None]], person: str, num_frames: int) -> Evidence:
    """Evidence of overlapping segments of four frames, two frames apart."""
    table = pa.table(
        {
            "segment": pa.array([row[0] for row in rows], pa.int32()),
            "prompt": [row[1] for row in rows],
            "rating": pa.array([row[2] for row in rows], schema.RATING.type),
        }
    )
    ranges = np.array([[2 * i, 2 * i + 4] for i in range(5)])
    cut = np.minimum(ranges, num_frames)
    times = np.arange(5.0)
    segments = Segments(times, times + 2, cut, np.ones(5, dtype=bool), np.zeros((5, 5), dtype=np.int64))
    nobody = np.empty(0, dtype=np.int64)
    clock, run = Timestamps(np.arange(12) / 2), Run(name="a", behavior=Behavior(rate=True))
    return Evidence({"behavior": table}, person, nobody, nobody, clock, num_frames, segments, ranges, run, {})


@pytest.mark.parametrize("person", ["main", "left"])
@pytest.mark.parametrize("num_frames", [7, 12, 15])
def test_ratings_of_a_frame_are_the_mean_over_the_rated_segments_that_cover_it(person: str, num_frames: int):
    rng = np.random.default_rng(num_frames)
    values = {(i, prompt): rng.uniform(-1, 1, 2).tolist() for i in (0, 1, 3) for prompt in ("neutral", "left")}
    rows = [(i, prompt, value) for (i, prompt), value in values.items()] + [(4, "neutral", None), (4, "left", None)]
    found = MODALITIES["behavior"].ratings(evidence(rows, person, num_frames))
    expected = np.full((num_frames, 2), np.nan)
    for t in range(num_frames):
        prompt = "left" if person == "left" else "neutral"
        covering = [values[i, prompt] for i in (0, 1, 3) if 2 * i <= t < 2 * i + 4]
        if covering:
            expected[t] = np.mean(covering, axis=0)
    assert found.shape == (num_frames, 2) and np.isnan(found).any() == (num_frames > 10)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_stored_track_without_a_single_rating_keeps_their_number():
    made = make_track("a", 30, np.random.default_rng(0), fps=10.0, width=4)
    for known in (0, 5):
        ratings = np.full((30, 2), np.nan, dtype=np.float32)
        ratings[:known] = 0.5
        table = tables.to_tables(replace(made, parts={}, ratings={"behavior": ratings}))["ratings_behavior"]
        np.testing.assert_array_equal(tables._ratings(table), ratings)


def test_the_linear_map_reads_behaviour_as_a_third_modality():
    linear = Linear(modalities=("face", "audio", "behavior"), smooth_s=(0.0, 1.0), folds=3)
    run = Run(name="a", systems=("linear",), linear=linear, behavior=Behavior(rate=True))
    assert run.extracted == run.rated == ("face", "behavior", "audio")
    assert MODALITIES["behavior"].num_ratings(run) == 2 and MODALITIES["behavior"].rates_affect(run)
    widths, rng = {"face": 10, "audio": 3, "behavior": 2}, np.random.default_rng(0)
    task, tracks = LinearTask(linear, widths), []
    for i in range(6):
        made = make_track(f"track{i}", 120, rng, fps=10.0, width=4)
        ratings = {m: rng.normal(size=(120, width)).astype(np.float32) for m, width in widths.items()}
        ratings["behavior"] = (0.3 * made.gold + 0.1).astype(np.float32)  # the only one that knows
        tracks.append(task.prepare(replace(made, ratings=ratings)))
    outputs = batches.run(task, task.build(), tracks[0], torch.device("cpu"))
    own = {m: tracks[0].ratings[m][:, :2] for m in linear.modalities}
    shares = [np.array([linear.valence_priors[m], linear.arousal_priors[m]]) for m in linear.modalities]
    expected = sum(s / sum(shares) * own[m] for s, m in zip(shares, linear.modalities, strict=True))
    np.testing.assert_allclose(task.series(tracks[0], outputs).prediction, expected, atol=1e-5)
    assert task.solve(tracks, []).best.ccc[:2].min() > 0.95


def test_a_run_whose_model_does_not_rate_is_told_which_flag_it_lacks():
    linear = Linear(modalities=("face", "behavior"))
    run = Run(name="a", systems=("linear",), linear=linear)
    with pytest.raises(ValueError, match=r"encoder of behavior gives .* give --behavior\.rate, or leave it out"):
        check_untrained(run, "linear")
    check_untrained(replace(run, behavior=Behavior(rate=True)), "linear")
