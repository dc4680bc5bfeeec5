"""States of a tiny random Qwen3-VL: which tokens it is shown, which states are read, and what it refuses."""

import json
import math
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _pytest.logging import LogCaptureFixture

from affect.behavior.checkpoint import SegmentFrames, _metadata, check, frame_size
from affect.behavior.prompt import PROMPTS, Prompt
from affect.behavior.qwen import Qwen, States
from affect.console import tiny
from affect.settings.extraction import Behavior
from affect.weights import WeightsError

pytestmark = pytest.mark.numeric

WIDTH = 64
TEXTS = list(PROMPTS.values())
NAIVE = 1e-5
"""Largest difference, absolute; states are of the order of 1."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint."""
    path = tmp_path_factory.mktemp("qwen")
    tiny.make_qwen(path, width=WIDTH)
    return path


@pytest.fixture(scope="module")
def qwen(folder: Path) -> Qwen:
    """It, loaded as the real one is."""
    return Qwen(Behavior(weights=str(folder)), TEXTS)


@pytest.fixture(scope="module")
def whole(folder: Path) -> Any:
    """The full model, with the head that makes words."""
    from transformers import Qwen3VLForConditionalGeneration

    return Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def shown(frames: int, seed: int = 0, width: int = 64, height: int = 64) -> SegmentFrames:
    """Random pictures four times a second."""
    pictures = np.random.default_rng(seed).integers(0, 256, size=(frames, height, width, 3), dtype=np.uint8)
    return SegmentFrames(pictures, np.arange(frames) / 4)


SEGMENTS = [shown(16, 1), shown(4, 2, 96), shown(7, 3, 64, 128), shown(1, 4)]


def one(qwen: Qwen, segment: SegmentFrames, prompt: Prompt = "neutral") -> States:
    """States of one segment."""
    [[states]] = qwen([segment], [PROMPTS[prompt]])
    return states


def inputs(qwen: Qwen, segment: SegmentFrames, prompt: Prompt = "neutral") -> dict[str, torch.Tensor]:
    """What the library's processor makes of one segment."""
    checkpoint = qwen._checkpoint
    batch = checkpoint.processor(
        text=[checkpoint.chat(PROMPTS[prompt])],
        videos=[segment.pictures.transpose(0, 3, 1, 2)],
        video_metadata=[_metadata(segment)],
        do_sample_frames=False,
        do_resize=False,
        return_tensors="pt",
    )
    batch.pop("video_metadata", None)
    return dict(batch)


def naive(qwen: Qwen, whole: Any, segment: SegmentFrames, prompt: Prompt) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three kinds of state from all hidden states of the full model, found token by token."""
    batch = inputs(qwen, segment, prompt)
    with torch.inference_mode():
        hidden = whole(**batch, output_hidden_states=True).hidden_states[-1][0].numpy()
    ids = batch["input_ids"][0].tolist()
    processor = qwen._checkpoint.processor
    ends = [i for i, token in enumerate(ids) if token == processor.vision_end_token_id]
    starts = [i for i, token in enumerate(ids) if token == processor.vision_start_token_id]
    patches = np.stack([hidden[a + 1 : b].mean(axis=0) for a, b in zip(starts, ends, strict=True)])
    return hidden[-1], hidden[ends[-1]], patches


@pytest.mark.parametrize("swapped", [False, True], ids=["landscape", "portrait"])
@pytest.mark.parametrize(
    ("width", "height", "tokens"), [(640, 360, 1760), (640, 480, 2400), (1280, 720, 5760), (1920, 1080, 5760)]
)
def test_the_number_of_video_tokens_is_pinned_and_the_librarys_own_processor_resizes_alike(
    width: int, height: int, tokens: int, swapped: bool
):
    from transformers import Qwen3VLVideoProcessor

    settings = Behavior()
    width, height = (height, width) if swapped else (width, height)
    size = {"shortest_edge": 16 * settings.min_frame_pixels, "longest_edge": 16 * settings.max_frame_pixels}
    library = Qwen3VLVideoProcessor(size=size, cap_pixels_per_frame=False)
    video = torch.zeros(16, 3, height, width, dtype=torch.uint8)
    made = library(videos=[video], do_sample_frames=False, return_tensors="pt")
    [[patches, rows, columns]] = made["video_grid_thw"].tolist()
    assert (patches, rows * columns // 4 * patches) == (8, tokens)
    assert frame_size(width, height, settings) == (columns * 16, rows * 16)


@pytest.mark.parametrize(
    "size", [(16, 16), (320, 240), (480, 854), (1080, 1920), (4096, 300), (7680, 4320), (333, 777)]
)
def test_no_picture_leaves_the_budget_and_the_aspect_is_kept(size: tuple[int, int]):
    settings = Behavior()
    width, height = frame_size(*size, settings)
    assert width % 32 == height % 32 == 0
    assert settings.min_frame_pixels <= width * height <= settings.max_frame_pixels
    assert abs(np.log(width / height) - np.log(size[0] / size[1])) < 0.25


def test_what_is_shown_is_what_the_model_reads(qwen: Qwen):
    segment = shown(16, width=640, height=352)  # what 640 x 360 is shown at
    assert frame_size(640, 360, Behavior()) == (640, 352)
    asked = qwen.prepare([segment], [PROMPTS["neutral"]])
    assert asked.layout.encoder["grid_thw"].tolist() == [[8, 22, 40]] and asked.layout.patches == ((8, 220),)
    assert (
        len(asked.layout.visual) == int((asked.inputs["input_ids"] == qwen._model.config.video_token_id).sum()) == 1760
    )


def test_each_temporal_patch_has_its_time_and_one_pair_of_vision_tokens_and_none_surrounds_them(qwen: Qwen):
    segment = SegmentFrames(shown(5).pictures, np.array([0.0, 0.4, 1.0, 2.04, 3.5]))
    text = qwen._checkpoint.processor.tokenizer.decode(inputs(qwen, segment, "left")["input_ids"][0])
    patch = "<|vision_start|>" + "<|video_pad|>" * 4 + "<|vision_end|>"
    video = "".join(f"<{mean:.1f} seconds>{patch}" for mean in (0.2, 1.52, 3.5))  # the last frame is doubled
    assert text == f"<|im_start|>user\n{video}{PROMPTS['left']}<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("prompts", [["neutral"], ["neutral", "left", "right"], ["right", "neutral"]])
def test_states_are_the_naive_ones_alone_and_in_a_batch_of_unequal_lengths(qwen: Qwen, whole: Any, prompts: list[Any]):
    texts = [PROMPTS[prompt] for prompt in prompts]
    together = qwen(SEGMENTS, texts)
    backwards = qwen(SEGMENTS[::-1], texts)[::-1]
    for i, segment in enumerate(SEGMENTS):
        [alone] = qwen([segment], texts)
        for j, prompt in enumerate(prompts):
            expected = naive(qwen, whole, segment, prompt)
            for found in (alone[j], together[i][j], backwards[i][j]):
                for value, plain in zip(found[:3], expected, strict=True):
                    assert value.dtype == np.float32 and value.shape == plain.shape
                    np.testing.assert_allclose(value, plain, atol=NAIVE, rtol=NAIVE)
            assert np.abs(expected[0] - expected[1]).max() > 0.1  # so they are three things, not one
        assert [states.micro_batch for states in alone] == [1] * len(prompts)
    assert {states.micro_batch for answers in together for states in answers} == {len(SEGMENTS)}


def test_people_of_one_segment_differ_in_the_last_token_alone(qwen: Qwen):
    [[neutral, left, right]] = qwen([shown(6)], TEXTS)
    for a, b in ((neutral, left), (left, right), (neutral, right)):
        assert np.array_equal(a.vision, b.vision) and np.array_equal(a.patches, b.patches)
        assert np.abs(a.multimodal - b.multimodal).max() > 0.02


def test_the_video_is_read_once_for_all_prompts(qwen: Qwen, monkeypatch: pytest.MonkeyPatch):
    read: list[int] = []
    forward = qwen._model.visual.forward

    def counted(pixels: torch.Tensor, **others: Any) -> Any:
        read.append(len(pixels))
        return forward(pixels, **others)

    monkeypatch.setattr(qwen._model.visual, "forward", counted)
    qwen([shown(8)], TEXTS)
    assert read == [4 * 16]  # four temporal patches of 4 x 4


def test_every_state_depends_on_the_pictures_and_a_patch_on_none_that_comes_later(qwen: Qwen):
    segment = shown(8)
    changed = segment.pictures.copy()
    changed[6:] = 255 - changed[6:]
    before, after = one(qwen, segment), one(qwen, SegmentFrames(changed, segment.time_s))
    assert before.patches[:3] == pytest.approx(after.patches[:3], abs=1e-4)
    for a, b in ((before.patches[3], after.patches[3]), (before.vision, after.vision)):
        assert np.abs(a - b).max() > 0.02
    assert (before.multimodal != after.multimodal).any()


@pytest.mark.parametrize(("frames", "patches"), [(1, 1), (2, 1), (3, 2), (5, 3), (16, 8)])
def test_odd_and_single_frames_work(frames: int, patches: int, qwen: Qwen):
    states = one(qwen, shown(frames))
    assert states.patches.shape == (patches, WIDTH)
    assert all(np.isfinite(value).all() for value in states[:3])


@pytest.fixture
def small_memory(qwen: Qwen, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Lets the decoder take so many segments at once; returns the numbers of those that it refused."""

    def limit(most: int) -> list[int]:
        forward, refused = qwen._model.language_model.forward, []

        def short(*args: Any, **inputs: Any) -> Any:
            if len(inputs["inputs_embeds"]) > most:
                refused.append(len(inputs["inputs_embeds"]))
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(*args, **inputs)

        monkeypatch.setattr(qwen._model.language_model, "forward", short)
        monkeypatch.setattr(qwen.in_memory, "_too_large", math.inf)
        return refused

    return limit


@pytest.mark.parametrize("prompts", [TEXTS[:1], TEXTS])
def test_a_batch_that_a_gpu_cannot_hold_is_halved_until_it_can_and_the_rows_say_so(
    qwen: Qwen, prompts: list[str], small_memory: Callable[[int], list[int]], caplog: LogCaptureFixture
):
    segments = [*SEGMENTS, shown(3, 5)]
    expected = qwen(segments, prompts)
    small_memory(2)
    halved = qwen(segments, prompts)
    assert [[states.micro_batch for states in answers] for answers in halved] == [
        [together] * len(prompts) for together in (2, 2, 1, 2, 2)
    ]
    for a, b in zip(halved, expected, strict=True):
        for mine, other in zip(a, b, strict=True):
            np.testing.assert_allclose(mine.multimodal, other.multimodal, atol=NAIVE)
    assert "--behavior.micro-batch 2" in caplog.text


def test_a_size_that_did_not_fit_is_not_tried_again_and_a_smaller_one_is(
    qwen: Qwen, small_memory: Callable[[int], list[int]]
):
    refused = small_memory(2)
    large, small = [shown(16, seed) for seed in range(4)], [shown(2, seed) for seed in range(2)]
    for _ in range(3):
        assert [answers[0].micro_batch for answers in qwen(large, TEXTS[:1])] == [2, 2, 2, 2]
    assert refused == [4]
    assert [len(part) for part in qwen.in_memory.parts(large)] == [2, 2]
    assert [answers[0].micro_batch for answers in qwen(small, TEXTS[:1])] == [2, 2]
    assert qwen.in_memory.parts(small) == [small]
    prepared = qwen.prepare_ahead(large, TEXTS[:1])  # before the limit was known
    assert [answers[0].micro_batch for answers in qwen.states(prepared)] == [2, 2, 2, 2]
    assert refused == [4]


def test_a_batch_that_a_gpu_cannot_even_prepare_ahead_is_prepared_in_halves_when_its_turn_comes(
    qwen: Qwen, monkeypatch: pytest.MonkeyPatch
):
    process = qwen._checkpoint.process

    def small_memory(shown: list[SegmentFrames], *args: Any, **options: Any) -> Any:
        if len(shown) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return process(shown, *args, **options)

    expected = qwen(SEGMENTS, TEXTS)
    monkeypatch.setattr(qwen._checkpoint, "process", small_memory)
    monkeypatch.setattr(qwen.in_memory, "_too_large", math.inf)
    asked = qwen.prepare_ahead(SEGMENTS, TEXTS)
    assert asked.inputs is None and len(qwen.in_memory.parts(SEGMENTS)) == 2  # the next ones are smaller from the start
    found = qwen.states(asked)
    assert [answers[0].micro_batch for answers in found] == [2, 2, 2, 2]
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine[1].multimodal, other[1].multimodal, atol=NAIVE)


def test_two_threads_prepare_at_once_without_harm(qwen: Qwen):
    """As after a lack of memory: one prepares the next micro-batch, the other the halves of this one."""

    def ids(number: int) -> list[Any]:
        asked = qwen.prepare(SEGMENTS[:2] if number % 2 else SEGMENTS[1:], TEXTS)
        assert asked.inputs and asked.prompt_tokens
        return [asked.inputs["input_ids"], *(tokens.ids for tokens in asked.prompt_tokens)]

    expected = [ids(0), ids(1)]
    with ThreadPoolExecutor(2) as threads:
        for number, found in enumerate(threads.map(ids, range(60))):
            assert all(torch.equal(a, b) for a, b in zip(found, expected[number % 2], strict=True))


def test_a_single_segment_that_a_gpu_cannot_hold_is_an_error(qwen: Qwen, small_memory: Callable[[int], list[int]]):
    refused = small_memory(0)
    with pytest.raises(torch.OutOfMemoryError):
        qwen(SEGMENTS, TEXTS)
    assert refused == [4, 2, 1]


def edited(folder: Path, to: Path, name: str, change: Any) -> Path:
    """A copy of a checkpoint of which one file is another."""
    shutil.copytree(folder, to)
    content = json.loads((to / name).read_text())
    change(content)
    (to / name).write_text(json.dumps(content))
    return to


def refused(folder: Path, **settings: Any) -> str:
    """Why a checkpoint cannot be used, in one line."""
    with pytest.raises(WeightsError) as raised:
        Qwen(replace(Behavior(weights=str(folder)), **settings), TEXTS)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_weights_of_another_model_are_refused(tmp_path: Path):
    tiny.make_wavlm(tmp_path)
    assert "describes a wavlm model, qwen3_vl is needed" in refused(tmp_path)


def test_a_tokenizer_without_the_vision_tokens_is_refused(folder: Path, tmp_path: Path):
    def rename(content: dict[str, Any]) -> None:
        content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "<|vision_end|>"]
        content["model"]["vocab"].pop("<|vision_end|>")

    path = edited(folder, tmp_path / "qwen", "tokenizer.json", rename)
    for name in ("tokenizer_config.json", "vocab.json", "added_tokens.json", "special_tokens_map.json"):
        if (path / name).exists():
            (path / name).write_text((path / name).read_text().replace("<|vision_end|>", "<|nothing|>"))
    assert "<|vision_end|>" in refused(path)


def test_a_checkpoint_that_lacks_tensors_is_refused(folder: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path / "qwen")
    path = tmp_path / "qwen" / "model.safetensors"
    tensors = load_file(path)
    gone = next(name for name in tensors if "q_proj" in name)
    del tensors[gone]
    save_file(tensors, path, metadata={"format": "pt"})
    assert "lacks 1 of the model's tensors" in refused(tmp_path / "qwen")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("model.safetensors", None, "there is no *.safetensors"),
        ("model.safetensors", b"", "cannot be loaded"),
        ("model.safetensors", b"\xff" * 4000, "cannot be loaded"),
        ("model.safetensors", 5000, "cannot be loaded"),
        ("config.json", b"no json", "config.json"),
        ("tokenizer.json", 500, "cannot be loaded"),
        ("chat_template.jinja", None, "cannot be loaded"),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line_that_names_it(
    folder: Path, name: str, content: bytes | int | None, expected: str, tmp_path: Path
):
    path = tmp_path / "qwen"
    shutil.copytree(folder, path)
    whole = (path / name).read_bytes()
    (path / name).unlink()
    if content is not None:
        (path / name).write_bytes(whole[:content] if isinstance(content, int) else content)
    said = refused(path)
    assert expected in said and str(path) in said


def test_a_tensor_of_another_shape_is_refused(folder: Path, tmp_path: Path):
    path = edited(folder, tmp_path / "qwen", "config.json", lambda c: c["text_config"].update(intermediate_size=96))
    assert "cannot be loaded" in refused(path)


def test_a_segment_that_may_be_longer_than_the_model_reads_is_refused_before_anything_runs(folder: Path):
    said = refused(folder, max_frame_pixels=2_000_000)
    assert "8192 tokens at most" in said and "max_frame_pixels" in said
    for prompts, max_new_tokens in ((["a very long prompt " * 500], 0), (TEXTS, 8000)):
        with pytest.raises(WeightsError, match="a shorter prompt"):
            check(Behavior(weights=str(folder)), prompts, max_new_tokens)
