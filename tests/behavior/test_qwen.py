"""States of a tiny random Qwen3-VL: which tokens it is shown, and which states are read."""

from pathlib import Path

import numpy as np
import pytest
import torch

from affect import tiny
from affect.behavior.prompt import PROMPTS
from affect.behavior.qwen import Qwen, Shown, States, _metadata, frame_size
from affect.config import Behavior

WIDTH = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint."""
    path = tmp_path_factory.mktemp("qwen")
    tiny.make_qwen(path, width=WIDTH)
    return path


@pytest.fixture(scope="module")
def qwen(folder: Path) -> Qwen:
    """It, loaded as the real one is."""
    return Qwen(Behavior(weights=str(folder), micro_batch=3))


def shown(frames: int, seed: int = 0, width: int = 64, height: int = 64) -> Shown:
    """Random pictures four times a second."""
    pictures = np.random.default_rng(seed).integers(0, 256, size=(frames, height, width, 3), dtype=np.uint8)
    return Shown(pictures, np.arange(frames) / 4)


def one(qwen: Qwen, segment: Shown, prompt: str = "neutral") -> States:
    """States of one segment."""
    [states] = qwen([(segment, PROMPTS[prompt])])
    return states


def inputs(qwen: Qwen, segment: Shown, prompt: str = "neutral") -> dict[str, torch.Tensor]:
    """What the processor makes of one segment."""
    batch = qwen._processor(
        text=[qwen._prompt(PROMPTS[prompt])],
        videos=[segment.pictures.transpose(0, 3, 1, 2)],
        video_metadata=[_metadata(segment)],
        do_sample_frames=False,
        do_resize=False,
        return_tensors="pt",
    )
    batch.pop("video_metadata", None)
    return dict(batch)


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [(640, 360, 1760), (640, 480, 2400), (1280, 720, 5760), (1920, 1080, 5760), (3840, 2160, 5760)],
)
def test_the_number_of_video_tokens_of_a_segment_is_pinned(width: int, height: int, tokens: int):
    shown_width, shown_height = frame_size(width, height, Behavior())
    assert shown_width % 32 == shown_height % 32 == 0
    assert 8 * (shown_width // 32) * (shown_height // 32) == tokens  # 16 frames are 8 temporal patches


@pytest.mark.parametrize(
    "size", [(16, 16), (320, 240), (480, 854), (1080, 1920), (4096, 300), (7680, 4320), (333, 777)]
)
def test_no_picture_leaves_the_budget_and_the_aspect_is_kept(size: tuple[int, int]):
    settings = Behavior()
    width, height = frame_size(*size, settings)
    assert settings.min_frame_pixels <= width * height <= settings.max_frame_pixels
    assert abs(np.log(width / height) - np.log(size[0] / size[1])) < 0.25


def test_transformers_own_processor_counts_the_same(qwen: Qwen):
    segment = shown(16, width=640, height=352)  # what 640 x 360 is shown at
    assert frame_size(640, 360, Behavior()) == (640, 352)
    batch = inputs(qwen, segment)
    assert batch["video_grid_thw"].tolist() == [[8, 22, 40]]
    assert int((batch["input_ids"] == qwen._model.config.video_token_id).sum()) == 1760


def test_each_temporal_patch_has_its_time_and_one_pair_of_vision_tokens_and_none_surrounds_them(qwen: Qwen):
    segment = Shown(shown(5).pictures, np.array([0.0, 0.4, 1.0, 2.04, 3.5]))
    text = qwen._processor.tokenizer.decode(inputs(qwen, segment, "left")["input_ids"][0])
    patch = "<|vision_start|>" + "<|video_pad|>" * 4 + "<|vision_end|>"
    video = "".join(f"<{mean:.1f} seconds>{patch}" for mean in (0.2, 1.52, 3.5))  # the last frame is doubled
    assert text == f"<|im_start|>user\n{video}{PROMPTS['left']}<|im_end|>\n<|im_start|>assistant\n"


def test_states_are_those_of_a_plain_forward_at_the_last_token_the_last_vision_end_and_the_patches(
    qwen: Qwen, folder: Path
):
    from transformers import Qwen3VLForConditionalGeneration

    segment = shown(8)
    batch, states = inputs(qwen, segment), one(qwen, segment)
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        hidden = model(**batch, output_hidden_states=True).hidden_states[-1][0].numpy()
    ids = batch["input_ids"][0].tolist()
    ends = [i for i, token in enumerate(ids) if token == qwen._processor.vision_end_token_id]
    starts = [i for i, token in enumerate(ids) if token == qwen._processor.vision_start_token_id]
    patches = np.stack([hidden[a + 1 : b].mean(axis=0) for a, b in zip(starts, ends, strict=True)])
    assert states.multimodal == pytest.approx(hidden[-1], abs=5e-3)
    assert states.vision == pytest.approx(hidden[ends[-1]], abs=5e-3)
    assert states.patches.shape == (4, WIDTH) and states.patches == pytest.approx(patches, abs=5e-3)
    assert np.abs(hidden[-1] - hidden[ends[-1]]).max() > 0.1
    assert all(value.dtype == np.float16 for value in states)


def test_a_batch_of_different_segments_is_one_at_a_time(qwen: Qwen):
    segments = [(16, 64, 64, "neutral"), (4, 96, 64, "left"), (7, 64, 128, "right"), (1, 64, 64, "neutral")]
    asked = [(shown(n, n, width, height), PROMPTS[p]) for n, width, height, p in segments]
    together = qwen(asked)
    assert len(together) == 4
    for segment, states in zip(asked, together, strict=True):
        [alone] = qwen([segment])
        for a, b in zip(states, alone, strict=True):
            assert a.astype(np.float64) == pytest.approx(b.astype(np.float64), abs=1e-2)
    assert np.abs(together[0].multimodal - together[3].multimodal).max() > 0.1


def test_the_prompt_reaches_the_last_token_and_no_visual_one(qwen: Qwen):
    neutral, left = one(qwen, shown(6), "neutral"), one(qwen, shown(6), "left")
    assert neutral.vision == pytest.approx(left.vision, abs=5e-3)
    assert neutral.patches == pytest.approx(left.patches, abs=5e-3)
    assert np.abs(neutral.multimodal - left.multimodal).max() > 0.05


def test_every_state_depends_on_the_pictures_and_a_patch_on_none_that_comes_later(qwen: Qwen):
    segment = shown(8)
    changed = segment.pictures.copy()
    changed[6:] = 255 - changed[6:]
    before, after = one(qwen, segment), one(qwen, Shown(changed, segment.time_s))
    assert before.patches[:3] == pytest.approx(after.patches[:3], abs=5e-3)
    for a, b in ((before.patches[3], after.patches[3]), (before.vision, after.vision)):
        assert np.abs(a - b).max() > 0.02
    assert (before.multimodal != after.multimodal).any()


@pytest.mark.parametrize(("frames", "patches"), [(1, 1), (2, 1), (3, 2), (5, 3), (16, 8)])
def test_odd_and_single_frames_work(frames: int, patches: int, qwen: Qwen):
    states = one(qwen, shown(frames))
    assert states.patches.shape == (patches, WIDTH) and all(np.isfinite(value).all() for value in states)


def test_nothing_asked_is_nothing_said(qwen: Qwen):
    assert qwen([]) == []
