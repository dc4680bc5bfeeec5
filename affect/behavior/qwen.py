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
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from affect.behavior.checkpoint import DIGITS, VIDEO, Checkpoint, SegmentFrames
from affect.behavior.prefill import Layout, lay_out, prefill, prepare_model
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
        inputs: tensors by the names of the model's arguments; None or empty before they are made.
        layout: places and positions of the tokens; None before they are made, or if text is generated.
        prompt_tokens: tokens of each prompt after the video; empty if there is one prompt, which is then in ``inputs``.
        questions: questions for valence and arousal of each prompt; empty if the model does not rate.
    """

    segments: Sequence[SegmentFrames]
    prompts: Sequence[str]
    inputs: dict[str, Tensor] | None = None
    layout: Layout | None = None
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
        self._model, self._compiled = self._checkpoint.model, settings.compile
        prepare_model(self._model, compiled=settings.compile)
        self.in_memory = InMemory(self._prefill, self.prepare)
        self._preparing = threading.Lock()  # the tokenizer keeps the side of its padding between two calls
        # transformers renamed the argument from `past_key_values` to `cache` between 5.17 and 5.24.
        names = inspect.signature(self._model.forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"

    def __call__(self, segments: Sequence[SegmentFrames], prompts: Sequence[str]) -> list[list[States]]:
        """Computes one micro-batch: for each segment, the states of each prompt."""
        return self.states(MicroBatch(segments, prompts))

    def prepare(self, segments: Sequence[SegmentFrames], prompts: Sequence[str]) -> MicroBatch:
        """Makes the input tensors of a micro-batch."""
        checkpoint, chats = self._checkpoint, [self._checkpoint.chat(prompt) for prompt in prompts]
        several = len(prompts) > 1
        text = chats[0].split(VIDEO)[0] + VIDEO if several else chats[0]
        with self._preparing, checkpoint.beside_the_model():
            batch = checkpoint.process(segments, [text] * len(segments))
            layout = lay_out(self._model, batch, checkpoint.device)
            inputs = {name: batch[name].to(checkpoint.device) for name in ("input_ids", "pixel_values_videos")}
            tokens = [self._after_video([prompt]) for prompt in prompts] if several else []
            questions = [self._after_video(self._questions[prompt]) for prompt in prompts] if self._questions else []
        return MicroBatch(segments, prompts, inputs, layout, tokens, questions)

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
            self.in_memory.note(segments)
            return MicroBatch(segments, prompts)

    def states(self, micro_batch: MicroBatch) -> list[list[States]]:
        """Computes, for each segment, the states of each prompt.

        Raises:
            torch.OutOfMemoryError: the GPU has not enough memory for a single segment.
        """
        return self.in_memory.run(micro_batch)

    @torch.inference_mode()
    def _prefill(self, micro_batch: MicroBatch) -> list[list[States]]:
        """Runs the video once; a single prompt is part of that pass, all other texts continue from its cache."""
        from transformers import DynamicCache

        inputs, layout, several = micro_batch.inputs, micro_batch.layout, bool(micro_batch.prompt_tokens)
        assert inputs
        assert layout
        ids, pixels = inputs["input_ids"], inputs["pixel_values_videos"]
        cached = several or bool(micro_batch.questions)
        cache = DynamicCache(config=self._model.config.text_config) if cached else None
        ratings: list[Any] = [[None] * len(ids)] * len(micro_batch.prompts)
        # torch would compile each layer anew for its part of the cache.
        with torch.compiler.set_stance("force_eager") if cached and self._compiled else nullcontext():
            states = prefill(self._model, ids, pixels, layout, use_cache=cached, **{self._cache_name: cache})
            last = [states[layout.last]]
            if cached:
                video = torch.arange(ids.shape[1], device=ids.device) < layout.end[:, None]
                if several:
                    last = [self._continue(each, layout.after, video, cache) for each in micro_batch.prompt_tokens]
                if micro_batch.questions:
                    ratings = self._ratings(micro_batch.questions, layout.after, video, cache)
        counts = [number * tokens for number, tokens in layout.patches]
        patches = [
            states[places].float().unflatten(0, size).mean(dim=1)  # (P, D)
            for size, places in zip(layout.patches, layout.visual.split(counts), strict=True)
        ]
        rows = [*last, states[layout.vision_end], *patches]
        numbers = _numbers(torch.cat([part.float() for part in rows]))  # one copy to the host
        *multimodal, vision, patches_of = np.split(numbers, np.cumsum([len(ids)] * (len(last) + 1)))
        patch_rows = np.split(patches_of, np.cumsum([number for number, _ in layout.patches])[:-1])
        return [
            [
                States(state[i], vision[i], patch_rows[i], len(ids), rating[i])
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


def digit_rating(logits: Float[Tensor, "*n 9"]) -> Float[Tensor, "*n"]:
    """Expected digit under a softmax over the digits 1 to 9, mapped to [-1, 1]."""
    digits = torch.tensor([float(digit) for digit in DIGITS], device=logits.device)
    return (logits.softmax(dim=-1) @ digits - 5) / 4


class InMemory(Generic[Result]):
    """Runs micro-batches within a GPU's memory: one that does not fit in halves, and from then on all of its size.

    Args:
        run: returns one result per segment of a micro-batch.
        prepare: makes the input tensors of segments and prompts.
    """

    def __init__(self, run: Callable[[MicroBatch], list[Result]], prepare: Callable[..., MicroBatch]) -> None:
        """Starts without a limit."""
        self._run, self._prepare = run, prepare
        self._too_large = math.inf  # values of the pictures of the smallest micro-batch that did not fit

    def parts(self, segments: Sequence[SegmentFrames]) -> list[Sequence[SegmentFrames]]:
        """Splits segments into halves, until each part is smaller than every micro-batch that did not fit."""
        if len(segments) == 1 or _num_values(segments) < self._too_large:
            return [segments]
        half = len(segments) // 2
        return [*self.parts(segments[:half]), *self.parts(segments[half:])]

    def note(self, segments: Sequence[SegmentFrames]) -> None:
        """Notes that segments, if they are several, do not fit together."""
        if len(segments) == 1:
            return
        self._too_large = min(self._too_large, _num_values(segments))
        logging.getLogger(__name__).warning(
            "the GPU has not enough memory for %d segments at once; this process takes %d of that size from now on, as "
            "--behavior.micro-batch %d would from the start (under another address: everything is then extracted anew)",
            *(len(segments), len(segments) // 2, len(segments) // 2),
        )

    def run(self, micro_batch: MicroBatch) -> list[Result]:
        """Runs a micro-batch; its inputs may be missing.

        Raises:
            torch.OutOfMemoryError: the GPU has not enough memory for a single segment.
        """
        segments, prompts = micro_batch.segments, micro_batch.prompts
        if len(parts := self.parts(segments)) == 1:
            try:
                return self._run(micro_batch if micro_batch.inputs else self._prepare(segments, prompts))
            except torch.OutOfMemoryError:
                if len(segments) == 1:
                    raise
            self.note(segments)
            parts = self.parts(segments)
        if micro_batch.inputs:
            micro_batch.inputs.clear()
        torch.cuda.empty_cache()
        return [result for part in parts for result in self.run(MicroBatch(part, prompts))]


def _num_values(segments: Sequence[SegmentFrames]) -> int:
    """Number of values of all pictures."""
    return sum(segment.pictures.size for segment in segments)


def _numbers(value: Tensor) -> Float[ndarray, "..."]:
    return value.float().cpu().numpy()
