"""Qwen3-VL states of a segment: one prefill, no logits, no text.

    multimodal   state of the last token of video + prompt + generation header
    vision       state at the last vision end, which has seen every frame and none of the prompt
    patches      mean state over the visual tokens of each temporal patch, one per half second

Where a segment is asked about several people, the video is computed once and every prompt goes on from there.

Source: paper, section 3.3; transformers' Qwen3-VL.

Differs: the authors run one segment at a time, twice, with logits and generated text, and resize pictures twice.
"""

import inspect
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from torch import Tensor

from affect import weights
from affect.config import Behavior
from affect.weights import WeightsError

PATCH_PX = 32
"""Side of a visual token: patches of 16 px, merged two by two."""
_MARKER = "<|video_pad|>"
_TOKENS = {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
_TOKENS |= {"video_token_id": _MARKER}

Answer = TypeVar("Answer")


class Shown(NamedTuple):
    """What the model sees of one segment.

    Args:
        pictures: RGB frames, already at the model's resolution.
        time_s: their times from the segment's start; at a variable rate the first ones may lie just before it.
    """

    pictures: UInt8[ndarray, "n H W 3"]
    time_s: Float[ndarray, " n"]


class States(NamedTuple):
    """Hidden states of one segment and prompt after the final norm.

    Args:
        multimodal: of the last token.
        vision: at the last vision end.
        patches: mean over the visual tokens of each temporal patch.
        micro_batch: segments that were computed together.
    """

    multimodal: Float[ndarray, " D"]
    vision: Float[ndarray, " D"]
    patches: Float[ndarray, "P D"]
    micro_batch: int


class Asked(NamedTuple):
    """A batch as the model reads it.

    Args:
        shown: the segments.
        prompts: what is asked about every one of them.
        inputs: tensors by the names of the model's arguments, rows padded at their end; None or empty if they are not
            made yet.
        words: tokens of each prompt that follow the video; none where the inputs hold the only prompt.
    """

    shown: Sequence[Shown]
    prompts: Sequence[str]
    inputs: dict[str, Tensor] | None = None
    words: Sequence[Int[Tensor, "1 n"]] = ()


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
        raise _cannot_load(settings.weights, error) from error
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


def _cannot_load(name: str, error: Exception) -> WeightsError:
    return WeightsError(f"{name}: cannot be loaded: {' '.join(str(error).split())}")


def _chat(processor: Any, text: str) -> str:  # noqa: ANN401 -- transformers' own class
    """One user turn, a video and a text, and the header of the answer."""
    turn = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}]
    prompt: str = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    # Each temporal patch gets its own vision start and end. transformers up to 4.57 put them in place of the
    # template's pair, as the model was trained; 5.x leaves that pair around them.
    return prompt.replace(f"<|vision_start|>{_MARKER}<|vision_end|>", _MARKER)


class Checkpoint:
    """A loaded Qwen3-VL with its processor; bfloat16 on a GPU, float32 on a CPU.

    Args:
        settings: weights, revision and sizes.
        prompts: what it will be asked.
        max_written: tokens that it may write; with 0 it is loaded without the head that makes words.
    """

    def __init__(self, settings: Behavior, prompts: Sequence[str], *, max_written: int = 0) -> None:
        """Load processor and weights (safetensors only).

        Raises:
            WeightsError: as :func:`check`, or the weights are not all there.
        """
        from transformers import AutoModel, AutoModelForImageTextToText
        from transformers.utils import is_flash_attn_2_available
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        folder, self.processor = check(settings, prompts, max_written)
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda" if cuda else "cpu")
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
            raise _cannot_load(settings.weights, error) from error
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


class Qwen:
    """Reads the states of segments.

    Args:
        settings: weights, revision and sizes.
        prompts: every text that it will be asked.
    """

    def __init__(self, settings: Behavior, prompts: Sequence[str]) -> None:
        """Load the base model, without the head that makes words."""
        self._checkpoint = Checkpoint(settings, prompts)
        self._model = self._checkpoint.model
        # transformers renames the argument: `past_key_values` up to 5.2x, then `cache`.
        names = inspect.signature(self._model.forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"

    def __call__(self, shown: Sequence[Shown], prompts: Sequence[str]) -> list[list[States]]:
        """States of each segment, one after the other, for each prompt: one micro-batch."""
        return self.states(Asked(shown, prompts))

    def prepare(self, shown: Sequence[Shown], prompts: Sequence[str]) -> Asked:
        """Make the tensors of a micro-batch of segments, of which all are asked the same."""
        checkpoint, chats = self._checkpoint, [self._checkpoint.chat(prompt) for prompt in prompts]
        if len(prompts) == 1:
            return Asked(shown, prompts, checkpoint.inputs(shown, chats * len(shown)))
        before, tokenizer = chats[0].split(_MARKER)[0] + _MARKER, checkpoint.processor.tokenizer
        after = [tokenizer(chat.split(_MARKER)[1], return_tensors="pt").input_ids for chat in chats]
        inputs = checkpoint.inputs(shown, [before] * len(shown))
        return Asked(shown, prompts, inputs, [words.to(checkpoint.device) for words in after])

    def prepare_ahead(self, shown: Sequence[Shown], prompts: Sequence[str]) -> Asked:
        """The same, in a thread; where a GPU has no memory for it now, it is left to be made when its turn comes."""
        try:
            return self.prepare(shown, prompts)
        except torch.OutOfMemoryError:
            return Asked(shown, prompts)

    def states(self, asked: Asked) -> list[list[States]]:
        """States of each segment for each prompt.

        Raises:
            torch.OutOfMemoryError: a GPU has not enough memory for a single segment.
        """
        return in_halves(self._prefill, self.prepare, asked)

    @torch.inference_mode()
    def _prefill(self, asked: Asked) -> list[list[States]]:
        """One pass over the video; the only prompt is part of it, several ones follow from its keys and values."""
        from transformers import DynamicCache

        inputs, several = asked.inputs, bool(asked.words)
        assert inputs
        ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        length = mask.sum(dim=1)
        cache = DynamicCache(config=self._model.config.text_config) if several else None
        states = self._model(**inputs, use_cache=several, **{self._cache_name: cache}).last_hidden_state  # (B, L, D)
        seen = [self._read(states[i, : length[i]], ids[i, : length[i]]) for i in range(len(ids))]
        last = [states[torch.arange(len(ids)), length - 1]]
        if several:
            position = (length + self._model.rope_deltas[:, 0])[:, None]  # of the first word, on all three axes
            last = [self._go_on(words, position, mask, cache) for words in asked.words]
        spoken = [_numbers(state) for state in last]
        return [[States(words[i], *seen[i], len(ids)) for words in spoken] for i in range(len(ids))]

    def _go_on(
        self,
        words: Int[Tensor, "1 n"],
        position: Int[Tensor, "B 1"],
        mask: Bool[Tensor, "B L"],
        cache: Any,  # noqa: ANN401 -- transformers' own class
    ) -> Float[Tensor, "B D"]:
        """State of the last word of a prompt that follows the video; the cache is left as it was."""
        batch, count = len(mask), words.shape[1]
        states = self._model(
            input_ids=words.expand(batch, count),
            attention_mask=torch.cat([mask, mask.new_ones(batch, count)], dim=1).long(),
            position_ids=(position + torch.arange(count, device=position.device)).expand(3, batch, count),
            use_cache=True,
            **{self._cache_name: cache},
        ).last_hidden_state
        cache.crop(-count)
        return states[:, -1]

    def _read(
        self, states: Float[Tensor, "L D"], ids: Int[Tensor, " L"]
    ) -> tuple[Float[ndarray, " D"], Float[ndarray, "P D"]]:
        """State at the last vision end, and the mean of each temporal patch."""
        config = self._model.config
        visual: Bool[Tensor, " L"] = ids == config.video_token_id
        ends = torch.nonzero(ids == config.vision_end_token_id).flatten()
        patch = torch.bucketize(torch.nonzero(visual).flatten(), ends)
        total = torch.zeros(len(ends), states.shape[1], dtype=torch.float32, device=states.device)
        total.index_add_(0, patch, states[visual].float())
        mean = total / torch.bincount(patch, minlength=len(ends))[:, None]
        return _numbers(states[ends[-1]]), _numbers(mean)


def in_halves(run: Callable[[Asked], list[Answer]], prepare: Callable[..., Asked], asked: Asked) -> list[Answer]:
    """Run a batch; where a GPU has not enough memory for it, run one half after the other.

    Args:
        run: gives one answer per segment.
        prepare: makes the tensors of a batch of segments and prompts.
        asked: the batch, made or not.

    Raises:
        torch.OutOfMemoryError: a single segment is too much.
    """
    count = len(asked.shown)
    try:
        return run(asked if asked.inputs else prepare(asked.shown, asked.prompts))
    except torch.OutOfMemoryError:
        if count == 1:
            raise
    if asked.inputs:
        asked.inputs.clear()
    torch.cuda.empty_cache()
    logging.getLogger(__name__).warning(
        "the GPU has not enough memory for %d segments at once and takes %d; --behavior.micro-batch %d would ask for "
        "that from the start (under another address: everything is then extracted anew)",
        *(count, count // 2, count // 2),
    )
    halves = (asked.shown[: count // 2], asked.shown[count // 2 :])
    return [answer for half in halves for answer in in_halves(run, prepare, Asked(half, asked.prompts))]


def _metadata(shown: Shown) -> Any:  # noqa: ANN401 -- transformers' own class, imported late
    """Frame times in milliseconds, so that the prompt tells them as they are at any frame rate."""
    from transformers.video_utils import VideoMetadata

    milliseconds = np.round(shown.time_s.clip(min=0) * 1000).astype(int).tolist()
    return VideoMetadata(total_num_frames=len(milliseconds), fps=1000.0, frames_indices=milliseconds)


def _numbers(value: Tensor) -> Float[ndarray, "..."]:
    return value.float().cpu().numpy()
