"""Qwen3-VL checkpoints: fetch, check and load one, and tokenise segments and prompts for it.

Source: paper (arXiv 2603.13056), section 3.3; spec section 4.1; transformers' Qwen3-VL.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from affect import weights
from affect.device import default_device
from affect.settings.extraction import Behavior
from affect.weights import WeightsError

PATCH_PX = 32
"""Side of a visual token in pixels: 2 x 2 patches of 16 px."""
VIDEO = "<|video_pad|>"
"""Token that the processor replaces by the tokens of a video."""
DIGITS = "123456789"
"""Answers of which the experimental rating reads the probabilities."""
_TOKENS = {
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "video_token_id": VIDEO,
}


class SegmentFrames(NamedTuple):
    """Sampled frames of one segment, the model's visual input.

    Args:
        pictures: RGB frames at the model's resolution.
        time_s: times in seconds from the segment's start; at a variable frame rate the first may be slightly negative.
    """

    pictures: UInt8[ndarray, "n H W 3"]
    time_s: Float[ndarray, " n"]


def frame_size(width: int, height: int, settings: Behavior) -> tuple[int, int]:
    """Width and height of a picture at the model's resolution: multiples of 32 px, aspect kept, within limits.

    Source: ``smart_resize`` of transformers' Qwen3-VL video processor, applied per frame.
    """
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

    resized_height, resized_width = smart_resize(
        num_frames=2,
        height=height,
        width=width,
        temporal_factor=2,
        factor=PATCH_PX,
        min_pixels=2 * settings.min_frame_pixels,
        max_pixels=2 * settings.max_frame_pixels,
    )
    return resized_width, resized_height


def check(
    settings: Behavior, prompts: Sequence[str], max_new_tokens: int = 0, *, rates: bool = False
) -> tuple[Path, Any]:
    """Fetches a checkpoint and checks it without loading its weights.

    Args:
        settings: weights, revision and sizes.
        prompts: texts of all prompts.
        max_new_tokens: most tokens that the model generates.
        rates: whether each digit has to be one token.

    Returns:
        Folder and processor of the checkpoint.

    Raises:
        WeightsError: it cannot be fetched, is another model's or damaged, its context is too short for a segment, or a
            digit is not one token.
    """
    from safetensors import SafetensorError, safe_open
    from transformers import AutoConfig, AutoProcessor

    folder = weights.checkpoint(settings.weights, settings.revision, "qwen3_vl")
    try:
        for path in folder.glob("*.json"):
            json.loads(path.read_text())  # the tokenizers library would raise a bare Exception
        for path in folder.glob("*.safetensors"):
            with safe_open(path, "pt"):
                pass  # a truncated file does not open
        config, processor = AutoConfig.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
        words = max(len(processor.tokenizer(_chat(processor, prompt)).input_ids) for prompt in prompts)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise weights.load_error(settings.weights, error) from error
    tokenizer = processor.tokenizer
    for name, token in _TOKENS.items():
        if tokenizer.convert_tokens_to_ids(token) != getattr(config, name):
            raise WeightsError(
                f"{settings.weights}: its tokenizer does not know {token} as the token {getattr(config, name)} of its "
                "config.json; it is not the tokenizer of this Qwen3-VL"
            )
    if rates:
        _digit_tokens(settings.weights, tokenizer)
    patch = settings.max_frame_pixels // PATCH_PX**2 + len(tokenizer("<000.0 seconds>").input_ids) + 2
    longest = words + -(-settings.max_frames // 2) * patch + max_new_tokens
    if longest > (limit := config.text_config.max_position_embeddings):
        raise WeightsError(
            f"{settings.weights} reads {limit} tokens at most, and a segment may have {longest}, {words} of them "
            "words: give fewer max_frames or max_frame_pixels, or a shorter prompt"
        )
    return folder, processor


def _digit_tokens(name: str, tokenizer: Any) -> list[int]:  # noqa: ANN401 -- transformers' own class
    """Tokens of :data:`DIGITS`.

    Raises:
        WeightsError: a digit is not one token.
    """
    found = [tokenizer(digit, add_special_tokens=False).input_ids for digit in DIGITS]
    for digit, tokens in zip(DIGITS, found, strict=True):
        if len(tokens) != 1 or tokens == [tokenizer.unk_token_id]:
            raise WeightsError(
                f"{name}: its tokenizer has no single token for the digit {digit}, which --behavior.rate needs: leave "
                "it out, or take another checkpoint"
            )
    return [token for [token] in found]


def _chat(processor: Any, text: str) -> str:  # noqa: ANN401 -- transformers' own class
    """Chat text: one user turn of a video and a text, then the generation header."""
    turn = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}]
    prompt: str = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    # Each temporal patch gets its own vision start and end token. transformers up to 4.57 replaced the template's pair
    # by them, as in the model's training; 5.x keeps that pair around them.
    return prompt.replace(f"<|vision_start|>{VIDEO}<|vision_end|>", VIDEO)


class Checkpoint:
    """A loaded Qwen3-VL and its processor; bfloat16 on a GPU, float32 on a CPU.

    Args:
        settings: weights, revision and sizes.
        prompts: texts of all prompts.
        device: ``cuda`` or ``cpu``; the available one if None.
        max_new_tokens: most tokens that it generates; with 0 ``model`` has no language-model head.
        rates: whether the head's rows of the digits are kept, as ``digit_rows`` (9, D).
    """

    def __init__(
        self,
        settings: Behavior,
        prompts: Sequence[str],
        device: str | None = None,
        *,
        max_new_tokens: int = 0,
        rates: bool = False,
    ) -> None:
        """Loads processor and weights (safetensors only).

        Raises:
            WeightsError: as :func:`check`, or tensors are missing.
        """
        from transformers import AutoModel, AutoModelForImageTextToText
        from transformers.utils import is_flash_attn_2_available
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        folder, self.processor = check(settings, prompts, max_new_tokens, rates=rates)
        self.device = torch.device(device or default_device())
        cuda = self.device.type == "cuda"
        self._stream = torch.cuda.Stream() if cuda else None
        kind: Any = AutoModelForImageTextToText if max_new_tokens or rates else AutoModel
        try:
            model, report = kind.from_pretrained(
                folder,
                dtype=torch.bfloat16 if cuda else torch.float32,
                attn_implementation="flash_attention_2" if cuda and is_flash_attn_2_available() else "sdpa",
                use_safetensors=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError) as error:  # a tensor of another shape is a RuntimeError
            raise weights.load_error(settings.weights, error) from error
        # transformers initialises missing tensors at random and only logs it.
        if lacking := sorted(report["missing_keys"]):
            raise WeightsError(f"{settings.weights}: it lacks {len(lacking)} of the model's tensors, as {lacking[0]}")
        self.digit_rows: Float[Tensor, "9 D"] | None = None
        if rates:  # a tied head is the embedding: transformers knows
            rows = model.get_output_embeddings().weight[_digit_tokens(settings.weights, self.processor.tokenizer)]
            self.digit_rows = rows.detach().float().to(self.device)
        self.model: Any = (model.model if rates and not max_new_tokens else model).eval().to(self.device)

    def chat(self, text: str) -> str:
        """Chat text: one user turn of a video and a text, then the generation header."""
        return _chat(self.processor, text)

    def inputs(self, segments: Sequence[SegmentFrames], texts: Sequence[str]) -> dict[str, Tensor]:
        """Input tensors of the model on its device, padded on the left: generated tokens follow each row's last one."""
        with self.beside_the_model():
            batch = self.process(segments, texts, padding_side="left")
            return {name: value.to(self.device) for name, value in batch.items()}

    @contextmanager
    def beside_the_model(self) -> Iterator[None]:
        """On a GPU, runs the block on a stream of its own, concurrently with the model, and waits for its end.

        The block's tensors are freed after the model's output has been read, so that their memory is not reused before.
        """
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            yield
        if self._stream:
            self._stream.synchronize()

    def process(
        self, segments: Sequence[SegmentFrames], texts: Sequence[str], *, padding_side: str = "right"
    ) -> dict[str, Tensor]:
        """Makes tokens on the CPU, and pictures on the model's device, of segments and one text each.

        Args:
            segments: frames of each segment.
            texts: chat text of each segment, from :meth:`chat`.
            padding_side: ``right`` to read states, ``left`` to generate text.
        """
        batch = self.processor(
            text=list(texts),
            videos=[torch.from_numpy(segment.pictures).permute(0, 3, 1, 2) for segment in segments],
            video_metadata=[_metadata(segment) for segment in segments],
            do_sample_frames=False,
            do_resize=False,
            padding=True,
            padding_side=padding_side,
            return_tensors="pt",
            videos_kwargs={"device": self.device},
        )
        batch.pop("video_metadata", None)
        return {name: value if name == "pixel_values_videos" else value.cpu() for name, value in batch.items()}


def _metadata(segment: SegmentFrames) -> Any:  # noqa: ANN401 -- transformers' own class, imported late
    """Frame times in milliseconds: the timestamps in the prompt are then correct at any frame rate."""
    from transformers.video_utils import VideoMetadata

    milliseconds = np.round(segment.time_s.clip(min=0) * 1000).astype(int).tolist()
    return VideoMetadata(total_num_frames=len(milliseconds), fps=1000.0, frames_indices=milliseconds)
