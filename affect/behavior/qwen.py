"""Hidden states of Qwen3-VL for a segment: one prefill, no logits, no generated text.

    multimodal   state of the last token of video + prompt + generation header
    vision       state of the last vision-end token, which attends to every frame and to none of the prompt
    patches      mean state over the visual tokens of each temporal patch, one per half second

With several prompts, the video is computed once and each prompt continues from its key-value cache.

Source: paper (arXiv 2603.13056), section 3.3; spec section 4.3; transformers' Qwen3-VL.
Differs: the authors run one segment at a time, twice, with logits and generated text, and resize frames twice.
"""

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from affect.behavior.checkpoint import VIDEO, Checkpoint, SegmentFrames
from affect.settings.extraction import Behavior

Result = TypeVar("Result")


class States(NamedTuple):
    """Hidden states of one segment and prompt, after the final norm.

    Args:
        multimodal: state of the last token.
        vision: state of the last vision-end token.
        patches: mean state over the visual tokens of each of the P temporal patches.
        micro_batch: number of segments that were computed together.
    """

    multimodal: Float[ndarray, " D"]
    vision: Float[ndarray, " D"]
    patches: Float[ndarray, "P D"]
    micro_batch: int


class MicroBatch(NamedTuple):
    """Segments that are computed together, with the same prompts for each.

    Args:
        segments: frames of each segment.
        prompts: prompts of every segment.
        inputs: tensors by the names of the model's arguments, padded on the right; None or empty before they are made.
        prompt_tokens: tokens of each prompt after the video; empty if there is one prompt, which is then in ``inputs``.
    """

    segments: Sequence[SegmentFrames]
    prompts: Sequence[str]
    inputs: dict[str, Tensor] | None = None
    prompt_tokens: Sequence[Int[Tensor, "1 n"]] = ()


class Qwen:
    """Computes the hidden states of segments.

    Args:
        settings: weights, revision and sizes.
        prompts: texts of all prompts.
        device: ``cuda`` or ``cpu``; the available one if None.
    """

    def __init__(self, settings: Behavior, prompts: Sequence[str], device: str | None = None) -> None:
        """Loads the base model, without the language-model head."""
        self._checkpoint = Checkpoint(settings, prompts, device)
        self._model = self._checkpoint.model
        # transformers renamed the argument from `past_key_values` to `cache` between 5.17 and 5.24.
        names = inspect.signature(self._model.forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"

    def __call__(self, segments: Sequence[SegmentFrames], prompts: Sequence[str]) -> list[list[States]]:
        """Computes one micro-batch: for each segment, the states of each prompt."""
        return self.states(MicroBatch(segments, prompts))

    def prepare(self, segments: Sequence[SegmentFrames], prompts: Sequence[str]) -> MicroBatch:
        """Makes the input tensors of a micro-batch."""
        checkpoint, chats = self._checkpoint, [self._checkpoint.chat(prompt) for prompt in prompts]
        if len(prompts) == 1:
            return MicroBatch(segments, prompts, checkpoint.inputs(segments, chats * len(segments)))
        before, tokenizer = chats[0].split(VIDEO)[0] + VIDEO, checkpoint.processor.tokenizer
        after = [tokenizer(chat.split(VIDEO)[1], return_tensors="pt").input_ids for chat in chats]
        inputs = checkpoint.inputs(segments, [before] * len(segments))
        return MicroBatch(segments, prompts, inputs, [tokens.to(checkpoint.device) for tokens in after])

    def prepare_ahead(self, segments: Sequence[SegmentFrames], prompts: Sequence[str]) -> MicroBatch:
        """Prepares a micro-batch from a thread; without enough GPU memory, :meth:`states` makes the inputs later."""
        try:
            return self.prepare(segments, prompts)
        except torch.OutOfMemoryError:
            return MicroBatch(segments, prompts)

    def states(self, micro_batch: MicroBatch) -> list[list[States]]:
        """Computes, for each segment, the states of each prompt.

        Raises:
            torch.OutOfMemoryError: the GPU has not enough memory for a single segment.
        """
        return run_in_halves(self._prefill, self.prepare, micro_batch)

    @torch.inference_mode()
    def _prefill(self, micro_batch: MicroBatch) -> list[list[States]]:
        """Runs the video once; a single prompt is part of that pass, several ones continue from its cache."""
        from transformers import DynamicCache

        inputs, several = micro_batch.inputs, bool(micro_batch.prompt_tokens)
        assert inputs
        ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        length = mask.sum(dim=1)
        cache = DynamicCache(config=self._model.config.text_config) if several else None
        states = self._model(**inputs, use_cache=several, **{self._cache_name: cache}).last_hidden_state  # (B, L, D)
        visual = [self._visual_states(states[i, : length[i]], ids[i, : length[i]]) for i in range(len(ids))]
        last = [states[torch.arange(len(ids), device=ids.device), length - 1]]
        if several:
            position = (length + self._model.rope_deltas[:, 0])[:, None]  # of the first prompt token, on all three axes
            last = [self._continue(tokens, position, mask, cache) for tokens in micro_batch.prompt_tokens]
        multimodal = [_numbers(state) for state in last]  # one (B, D) per prompt
        return [[States(state[i], *visual[i], len(ids)) for state in multimodal] for i in range(len(ids))]

    def _continue(
        self,
        prompt_tokens: Int[Tensor, "1 n"],
        position: Int[Tensor, "B 1"],
        mask: Bool[Tensor, "B L"],
        cache: Any,  # noqa: ANN401 -- transformers' own class
    ) -> Float[Tensor, "B D"]:
        """Computes the state of a prompt's last token after the video; the cache is restored."""
        batch, count = len(mask), prompt_tokens.shape[1]
        states = self._model(
            input_ids=prompt_tokens.expand(batch, count),
            attention_mask=torch.cat([mask, mask.new_ones(batch, count)], dim=1).long(),
            position_ids=(position + torch.arange(count, device=position.device)).expand(3, batch, count),
            use_cache=True,
            **{self._cache_name: cache},
        ).last_hidden_state
        cache.crop(-count)
        return states[:, -1]

    def _visual_states(
        self, states: Float[Tensor, "L D"], ids: Int[Tensor, " L"]
    ) -> tuple[Float[ndarray, " D"], Float[ndarray, "P D"]]:
        """Reads the state of the last vision-end token and the mean state of each temporal patch."""
        config = self._model.config
        visual: Bool[Tensor, " L"] = ids == config.video_token_id
        ends = torch.nonzero(ids == config.vision_end_token_id).flatten()
        patches = states[visual].float().unflatten(0, (len(ends), -1))  # (P, tokens, D)
        return _numbers(states[ends[-1]]), _numbers(patches.mean(dim=1))


def run_in_halves(
    run: Callable[[MicroBatch], list[Result]], prepare: Callable[..., MicroBatch], micro_batch: MicroBatch
) -> list[Result]:
    """Runs a micro-batch; if the GPU has not enough memory, runs its halves one after the other.

    Args:
        run: returns one result per segment.
        prepare: makes the input tensors of segments and prompts.
        micro_batch: the segments; inputs may be missing.

    Raises:
        torch.OutOfMemoryError: the GPU has not enough memory for a single segment.
    """
    count = len(micro_batch.segments)
    try:
        return run(micro_batch if micro_batch.inputs else prepare(micro_batch.segments, micro_batch.prompts))
    except torch.OutOfMemoryError:
        if count == 1:
            raise
    if micro_batch.inputs:
        micro_batch.inputs.clear()
    torch.cuda.empty_cache()
    logging.getLogger(__name__).warning(
        "the GPU has not enough memory for %d segments at once and takes %d; --behavior.micro-batch %d would use "
        "that from the start (under another address: everything is then extracted anew)",
        *(count, count // 2, count // 2),
    )
    halves = (micro_batch.segments[: count // 2], micro_batch.segments[count // 2 :])
    return [result for half in halves for result in run_in_halves(run, prepare, MicroBatch(half, micro_batch.prompts))]


def _numbers(value: Tensor) -> Float[ndarray, "..."]:
    return value.float().cpu().numpy()
