"""Qwen3-VL states of a segment: one prefill, no logits, no text.

    multimodal   state of the last token of video + prompt + generation header
    vision       state at the last vision end, which has seen every frame and none of the prompt
    patches      mean state over the visual tokens of each temporal patch, one per half second

Source: paper, section 3.3; transformers' Qwen3-VL.

Differs: the authors run one segment at a time, twice, with logits and generated text, and resize pictures twice.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from torch import Tensor

from affect.config import Behavior

PATCH_PX = 32
"""Side of a visual token: patches of 16 px, merged two by two."""


class Shown(NamedTuple):
    """What the model sees of one segment.

    Args:
        pictures: RGB frames, already at the model's resolution.
        time_s: their times from the segment's start.
    """

    pictures: UInt8[ndarray, "n H W 3"]
    time_s: Float[ndarray, " n"]


class States(NamedTuple):
    """Final hidden states of one segment and prompt, float16.

    Args:
        multimodal: of the last token, (D,).
        vision: at the last vision end, (D,).
        patches: mean over the visual tokens of each temporal patch, (P, D).
    """

    multimodal: Float[ndarray, " D"]
    vision: Float[ndarray, " D"]
    patches: Float[ndarray, "P D"]


def frame_size(width: int, height: int, settings: Behavior) -> tuple[int, int]:
    """Width and height that a picture is shown at: multiples of 32 px, aspect kept, within the pixel budget.

    Source: ``smart_resize`` of transformers' Qwen3-VL video processor, applied per frame.
    """
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

    shown_height, shown_width = smart_resize(
        num_frames=2,
        height=height,
        width=width,
        temporal_factor=2,
        factor=PATCH_PX,
        min_pixels=2 * settings.min_frame_pixels,
        max_pixels=2 * settings.max_frame_pixels,
    )
    return shown_width, shown_height


class Qwen:
    """A loaded Qwen3-VL base model with its processor; bfloat16 on a GPU, float32 on a CPU.

    Args:
        settings: weights, revision and micro-batch.
    """

    def __init__(self, settings: Behavior) -> None:
        """Load processor and weights (safetensors only)."""
        from transformers import AutoModel, AutoProcessor
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        self._settings = settings
        self._processor: Any = AutoProcessor.from_pretrained(settings.weights, revision=settings.revision)
        model: Any = AutoModel.from_pretrained(
            settings.weights, revision=settings.revision, dtype=dtype, use_safetensors=True
        )
        self._model = model.eval().to(self._device)

    def __call__(self, segments: Sequence[tuple[Shown, str]]) -> list[States]:
        """States of each segment with its prompt's text, in micro-batches."""
        size = self._settings.micro_batch
        batches = [segments[i : i + size] for i in range(0, len(segments), size)]
        return [states for batch in batches for states in self._prefill(batch)]

    def _prompt(self, text: str) -> str:
        turn = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}]
        prompt = self._processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        # Each temporal patch gets its own vision start and end. transformers up to 4.57 put them in place of the
        # template's pair, as the model was trained; 5.x leaves that pair around them.
        return prompt.replace("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>")

    @torch.inference_mode()
    def _prefill(self, segments: Sequence[tuple[Shown, str]]) -> list[States]:
        batch = self._processor(
            text=[self._prompt(text) for _, text in segments],
            videos=[shown.pictures.transpose(0, 3, 1, 2) for shown, _ in segments],
            video_metadata=[_metadata(shown) for shown, _ in segments],
            do_sample_frames=False,
            do_resize=False,
            padding=True,
            padding_side="right",  # causal: what stands right of a token cannot change its state
            return_tensors="pt",
        )
        batch.pop("video_metadata", None)
        inputs = {name: value.to(self._device) for name, value in batch.items()}
        states = self._model(**inputs, use_cache=False).last_hidden_state.float()
        ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        return [self._read(states[i][mask[i]], ids[i][mask[i]]) for i in range(len(segments))]

    def _read(self, states: Float[Tensor, "L D"], ids: Tensor) -> States:
        visual: Bool[Tensor, " L"] = ids == self._model.config.video_token_id
        ends = torch.nonzero(ids == self._processor.vision_end_token_id).flatten()
        patch = torch.bucketize(torch.arange(len(ids), device=ids.device), ends)[visual]
        width = states.shape[1]
        total = states.new_zeros(len(ends), width).index_add(0, patch, states[visual])
        mean = total / torch.bincount(patch, minlength=len(ends))[:, None]
        return States(_half(states[-1]), _half(states[ends[-1]]), _half(mean))


def _metadata(shown: Shown) -> Any:  # noqa: ANN401 -- transformers' own class, imported late
    """Frame times in milliseconds, so that the prompt tells them as they are at any frame rate."""
    from transformers.video_utils import VideoMetadata

    milliseconds = np.round(shown.time_s * 1000).astype(int).tolist()
    return VideoMetadata(total_num_frames=len(milliseconds), fps=1000.0, frames_indices=milliseconds)


def _half(value: Tensor) -> ndarray:
    return value.to(torch.float16).cpu().numpy()
