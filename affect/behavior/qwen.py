"""Hidden states of Qwen3-VL for a segment: one prefill, no logits, no generated text.

    multimodal   state of the last token of video + prompt + generation header
    vision       state of the last vision-end token, which attends to every frame and to none of the prompt
    patches      mean state over the visual tokens of each temporal patch, one per half second

With several prompts, the video is computed once and each prompt continues from its key-value cache. So do the two
questions of the experimental rating: of their last token's state h and the head's rows w_d of the digits d,

    rating = (sum_d p_d d - 5) / 4,   p = softmax over d = 1 ... 9 of  w_d . h        in [-1, 1]

Source: paper (arXiv 2603.13056), section 3.3; spec section 4.3; transformers' Qwen3-VL.
Differs: the authors run one segment at a time, twice, with logits and generated text, and resize frames twice.
"""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from affect.behavior.checkpoint import DIGITS, VIDEO, Checkpoint, SegmentFrames
from affect.settings.extraction import Behavior

Result = TypeVar("Result")


class States(NamedTuple):
    """Hidden states of one segment and prompt, after the final norm.

    Args:
        multimodal: state of the last token.
        vision: state of the last vision-end token.
        patches: mean state over the visual tokens of each of the P temporal patches.
        micro_batch: number of segments that were computed together.
        rating: valence and arousal in [-1, 1]; None if the model does not rate.
    """

    multimodal: Float[ndarray, " D"]
    vision: Float[ndarray, " D"]
    patches: Float[ndarray, "P D"]
    micro_batch: int
    rating: Float[ndarray, "2"] | None = None


class Tokens(NamedTuple):
    """Texts after the video, padded on the left.

    Args:
        ids: tokens.
        valid: true for tokens that are no padding.
    """

    ids: Int[Tensor, "texts n"]
    valid: Bool[Tensor, "texts n"]


class MicroBatch(NamedTuple):
    """Segments that are computed together, with the same prompts for each.

    Args:
        segments: frames of each segment.
        prompts: prompts of every segment.
        inputs: tensors by the names of the model's arguments, padded on the right; None or empty before they are made.
        prompt_tokens: tokens of each prompt after the video; empty if there is one prompt, which is then in ``inputs``.
        questions: questions for valence and arousal of each prompt; empty if the model does not rate.
    """

    segments: Sequence[SegmentFrames]
    prompts: Sequence[str]
    inputs: dict[str, Tensor] | None = None
    prompt_tokens: Sequence[Tokens] = ()
    questions: Sequence[Tokens] = ()


class Qwen:
    """Computes the hidden states of segments.

    Args:
        settings: weights, revision and sizes.
        prompts: texts of all prompts.
        device: ``cuda`` or ``cpu``; the available one if None.
        questions: questions for valence and arousal by prompt, if the model rates.
    """

    def __init__(
        self,
        settings: Behavior,
        prompts: Sequence[str],
        device: str | None = None,
        questions: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        """Loads the base model, and of the language-model head at most the rows of the digits."""
        self._questions = questions or {}
        texts = [*prompts, *(text for pair in self._questions.values() for text in pair)]
        self._checkpoint = Checkpoint(settings, texts, device, rates=bool(self._questions))
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
        questions = [self._after_video(self._questions[prompt]) for prompt in prompts] if self._questions else []
        if len(prompts) == 1:
            inputs = checkpoint.inputs(segments, chats * len(segments))
            return MicroBatch(segments, prompts, inputs, questions=questions)
        inputs = checkpoint.inputs(segments, [chats[0].split(VIDEO)[0] + VIDEO] * len(segments))
        return MicroBatch(segments, prompts, inputs, [self._after_video([prompt]) for prompt in prompts], questions)

    def _after_video(self, texts: Sequence[str]) -> Tokens:
        """Tokens of the chats of some texts, after the video."""
        after = [self._checkpoint.chat(text).split(VIDEO)[1] for text in texts]
        made = self._checkpoint.processor.tokenizer(after, padding=True, padding_side="left", return_tensors="pt")
        ids, valid = (made[name].to(self._checkpoint.device) for name in ("input_ids", "attention_mask"))
        return Tokens(ids, valid.bool())

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
        """Runs the video once; a single prompt is part of that pass, all other texts continue from its cache."""
        from transformers import DynamicCache

        inputs, several = micro_batch.inputs, bool(micro_batch.prompt_tokens)
        assert inputs
        ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        length, index = mask.sum(dim=1), torch.arange(ids.shape[1], device=ids.device)
        cached = several or bool(micro_batch.questions)
        cache = DynamicCache(config=self._model.config.text_config) if cached else None
        states = self._model(**inputs, use_cache=cached, **{self._cache_name: cache}).last_hidden_state  # (B, L, D)
        visual = [self._visual_states(states[i, : length[i]], ids[i, : length[i]]) for i in range(len(ids))]
        last = [states[torch.arange(len(ids), device=ids.device), length - 1]]
        ratings: list[Any] = [[None] * len(ids)] * len(micro_batch.prompts)
        if cached:
            end = (index * (ids == self._model.config.vision_end_token_id)).amax(dim=1) + 1  # of the video
            position = (end + self._model.rope_deltas[:, 0])[:, None]  # of the first token after it, on all three axes
            video = index < end[:, None]
            if several:
                last = [self._continue(tokens, position, video, cache) for tokens in micro_batch.prompt_tokens]
            if micro_batch.questions:
                ratings = self._ratings(micro_batch.questions, position, video, cache)
        multimodal = [_numbers(state) for state in last]  # one (B, D) per prompt
        return [
            [
                States(state[i], *visual[i], len(ids), rating[i])
                for state, rating in zip(multimodal, ratings, strict=True)
            ]
            for i in range(len(ids))
        ]

    def _ratings(
        self,
        questions: Sequence[Tokens],
        position: Int[Tensor, "B 1"],
        video: Bool[Tensor, "B L"],
        cache: Any,  # noqa: ANN401 -- transformers' own class
    ) -> list[Float[ndarray, "B 2"]]:
        """Rates valence and arousal for each prompt; the cache is repeated for the two questions."""
        assert self._checkpoint.digit_rows is not None
        cache.batch_repeat_interleave(2)  # one pass for both: short passes are bound by their overhead
        position, video = position.repeat_interleave(2, dim=0), video.repeat_interleave(2, dim=0)
        states = [self._continue(tokens, position, video, cache) for tokens in questions]  # each (2 B, D)
        logits = [state.float() @ self._checkpoint.digit_rows.T for state in states]
        return [_numbers(digit_rating(each)).reshape(-1, 2) for each in logits]

    def _continue(
        self,
        tokens: Tokens,
        position: Int[Tensor, "B 1"],
        video: Bool[Tensor, "B L"],
        cache: Any,  # noqa: ANN401 -- transformers' own class
    ) -> Float[Tensor, "B D"]:
        """Computes the state of the last token of a text after the video; the cache is restored.

        Args:
            tokens: one text, or several that the rows of the batch take by turns.
            position: position of the first token after the video.
            video: true for tokens of the cache that belong to the video.
            cache: keys and values.
        """
        times, count = len(video) // len(tokens.ids), tokens.ids.shape[1]
        valid = tokens.valid.repeat(times, 1)
        states = self._model(
            input_ids=tokens.ids.repeat(times, 1),
            attention_mask=torch.cat([video, valid], dim=1).long(),
            position_ids=(position + valid.cumsum(dim=1) - 1).expand(3, *valid.shape),
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


def digit_rating(logits: Float[Tensor, "*n 9"]) -> Float[Tensor, "*n"]:
    """Expected digit under a softmax over the digits 1 to 9, mapped to [-1, 1]."""
    digits = torch.tensor([float(digit) for digit in DIGITS], device=logits.device)
    return (logits.softmax(dim=-1) @ digits - 5) / 4


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
