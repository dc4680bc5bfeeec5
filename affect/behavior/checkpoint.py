"""A Qwen3-VL on disk: fetched, checked, loaded, and fed with the pictures and words of segments."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from affect import weights
from affect.device import at_hand
from affect.settings.extraction import Behavior
from affect.weights import WeightsError

PATCH_PX = 32
"""Side of a visual token: patches of 16 px, merged two by two."""
VIDEO = "<|video_pad|>"
_TOKENS = {
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "video_token_id": VIDEO,
}


class Shown(NamedTuple):
    """What the model sees of one segment.

    Args:
        pictures: RGB frames, already at the model's resolution.
        time_s: their times from the segment's start; at a variable rate the first ones may lie just before it.
    """

    pictures: UInt8[ndarray, "n H W 3"]
    time_s: Float[ndarray, " n"]


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


def check(settings: Behavior, prompts: Sequence[str], max_written: int = 0) -> tuple[Path, Any]:
    """Fetch a checkpoint and see all that can be seen without loading its weights.

    Args:
        settings: weights, revision and sizes.
        prompts: what the model will be asked.
        max_written: tokens that it may write.

    Returns:
        Its folder and its processor.

    Raises:
        WeightsError: it cannot be had, is of another model, is damaged, or cannot read a segment.
    """
    from safetensors import SafetensorError, safe_open
    from transformers import AutoConfig, AutoProcessor

    folder = weights.checkpoint(settings.weights, settings.revision, "qwen3_vl")
    try:
        for path in folder.glob("*.json"):
            json.loads(path.read_text())  # the tokenizers library would raise a bare Exception
        for path in folder.glob("*.safetensors"):
            with safe_open(path, "pt"):
                pass  # a file that was cut off or is none does not open
        config, processor = AutoConfig.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
        words = max(len(processor.tokenizer(_chat(processor, prompt)).input_ids) for prompt in prompts)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise weights.cannot_load(settings.weights, error) from error
    tokenizer = processor.tokenizer
    for name, token in _TOKENS.items():
        if tokenizer.convert_tokens_to_ids(token) != getattr(config, name):
            raise WeightsError(
                f"{settings.weights}: its tokenizer does not know {token} as the token {getattr(config, name)} of its "
                "config.json; it is not the tokenizer of this Qwen3-VL"
            )
    patch = settings.max_frame_pixels // PATCH_PX**2 + len(tokenizer("<000.0 seconds>").input_ids) + 2
    longest = words + -(-settings.max_frames // 2) * patch + max_written
    if longest > (limit := config.text_config.max_position_embeddings):
        raise WeightsError(
            f"{settings.weights} reads {limit} tokens at most, and a segment may have {longest}, {words} of them "
            "words: give fewer max_frames or max_frame_pixels, or a shorter prompt"
        )
    return folder, processor


def _chat(processor: Any, text: str) -> str:  # noqa: ANN401 -- transformers' own class
    """One user turn, a video and a text, and the header of the answer."""
    turn = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}]
    prompt: str = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    # Each temporal patch gets its own vision start and end. transformers up to 4.57 put them in place of the
    # template's pair, as the model was trained; 5.x leaves that pair around them.
    return prompt.replace(f"<|vision_start|>{VIDEO}<|vision_end|>", VIDEO)


class Checkpoint:
    """A loaded Qwen3-VL with its processor; bfloat16 on a GPU, float32 on a CPU.

    Args:
        settings: weights, revision and sizes.
        prompts: what it will be asked.
        device: ``cuda`` or ``cpu``; the one at hand if not given.
        max_written: tokens that it may write; with 0 it is loaded without the head that makes words.
    """

    def __init__(
        self, settings: Behavior, prompts: Sequence[str], device: str | None = None, *, max_written: int = 0
    ) -> None:
        """Load processor and weights (safetensors only).

        Raises:
            WeightsError: as :func:`check`, or the weights are not all there.
        """
        from transformers import AutoModel, AutoModelForImageTextToText
        from transformers.utils import is_flash_attn_2_available
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        folder, self.processor = check(settings, prompts, max_written)
        self.device = torch.device(device or at_hand())
        cuda = self.device.type == "cuda"
        self._side = torch.cuda.Stream() if cuda else None
        kind: Any = AutoModelForImageTextToText if max_written else AutoModel
        try:
            model, report = kind.from_pretrained(
                folder,
                dtype=torch.bfloat16 if cuda else torch.float32,
                attn_implementation="flash_attention_2" if cuda and is_flash_attn_2_available() else "sdpa",
                use_safetensors=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError) as error:  # a tensor of another shape is a RuntimeError
            raise weights.cannot_load(settings.weights, error) from error
        # transformers fills what a checkpoint lacks with random numbers and only logs it.
        if lacking := sorted(report["missing_keys"]):
            raise WeightsError(f"{settings.weights}: it lacks {len(lacking)} of the model's tensors, as {lacking[0]}")
        self.model: Any = model.eval().to(self.device)

    def chat(self, text: str) -> str:
        """One user turn, a video and a text, and the header of the answer."""
        return _chat(self.processor, text)

    def inputs(self, shown: Sequence[Shown], texts: Sequence[str], *, padding_side: str = "right") -> dict[str, Tensor]:
        """Tensors of segments and their texts on the model's device; a GPU scales and cuts the pixels itself."""
        # On a GPU this runs beside the model, in a stream of its own. The tensors are freed after the model's answer
        # has been read, so that nothing is written over them before.
        with torch.cuda.stream(self._side) if self._side else nullcontext():
            batch = self.processor(
                text=list(texts),
                videos=[torch.from_numpy(segment.pictures).permute(0, 3, 1, 2) for segment in shown],
                video_metadata=[_metadata(segment) for segment in shown],
                do_sample_frames=False,
                do_resize=False,
                padding=True,
                padding_side=padding_side,
                return_tensors="pt",
                videos_kwargs={"device": self.device},
            )
            batch.pop("video_metadata", None)
            made = {name: value.to(self.device) for name, value in batch.items()}
        if self._side:
            self._side.synchronize()
        return made


def _metadata(shown: Shown) -> Any:  # noqa: ANN401 -- transformers' own class, imported late
    """Frame times in milliseconds, so that the prompt tells them as they are at any frame rate."""
    from transformers.video_utils import VideoMetadata

    milliseconds = np.round(shown.time_s.clip(min=0) * 1000).astype(int).tolist()
    return VideoMetadata(total_num_frames=len(milliseconds), fps=1000.0, frames_indices=milliseconds)
