"""Qwen3-VL states of a segment: one prefill, no logits, no text.

    multimodal   state of the last token of video + prompt + generation header
    vision       state at the last vision end, which has seen every frame and none of the prompt
    patches      mean state over the visual tokens of each temporal patch, one per half second

Where a segment is asked about several people, the video is computed once and every prompt goes on from there.

Source: paper, section 3.3; transformers' Qwen3-VL.

Differs: the authors run one segment at a time, twice, with logits and generated text, and resize pictures twice.
"""

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from affect.behavior.checkpoint import VIDEO, Checkpoint, Shown
from affect.settings.extraction import Behavior

Answer = TypeVar("Answer")


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


class Qwen:
    """Reads the states of segments.

    Args:
        settings: weights, revision and sizes.
        prompts: every text that it will be asked.
        device: ``cuda`` or ``cpu``; the one at hand if not given.
    """

    def __init__(self, settings: Behavior, prompts: Sequence[str], device: str | None = None) -> None:
        """Load the base model, without the head that makes words."""
        self._checkpoint = Checkpoint(settings, prompts, device)
        self._model = self._checkpoint.model
        # transformers renamed the argument from `past_key_values` to `cache` between 5.17 and 5.24.
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
        before, tokenizer = chats[0].split(VIDEO)[0] + VIDEO, checkpoint.processor.tokenizer
        after = [tokenizer(chat.split(VIDEO)[1], return_tensors="pt").input_ids for chat in chats]
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
        last = [states[torch.arange(len(ids), device=ids.device), length - 1]]
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
        patches = states[visual].float().unflatten(0, (len(ends), -1))  # (P, tokens, D): all have as many tokens
        return _numbers(states[ends[-1]]), _numbers(patches.mean(dim=1))


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


def _numbers(value: Tensor) -> Float[ndarray, "..."]:
    return value.float().cpu().numpy()
