"""Behaviour of a clip in words: what the vision-language model writes about each segment."""

from itertools import islice
from typing import cast

import pyarrow as pa
import torch

from affect import schema
from affect.behavior.frames import extracted, shown
from affect.behavior.prompt import PROMPTS, Prompt
from affect.behavior.qwen import Asked, Checkpoint, Shown, in_halves
from affect.config import Behavior, Description
from affect.corpus.clip import Clip, Extracted


class DescriptionClip:
    """Turns a clip into one text per segment and prompt, by greedy decoding.

    Args:
        behavior: weights, frames, sizes.
        settings: how long a text may be.
    """

    def __init__(self, behavior: Behavior, settings: Description) -> None:
        """Load the model with the head that makes words."""
        from transformers import GenerationConfig

        self._behavior = behavior
        self._checkpoint = Checkpoint(behavior, list(PROMPTS.values()), writes=True)
        tokenizer = self._checkpoint.processor.tokenizer
        pad, end = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
        self._how = GenerationConfig(
            do_sample=False, max_new_tokens=settings.max_tokens, pad_token_id=pad, eos_token_id=[end, pad]
        )

    def __call__(self, clip: Clip) -> Extracted:
        """Describe a clip.

        Raises:
            MediaError: the video cannot be opened.
        """
        rows, seen = [], 0
        pairs = shown(clip, self._behavior)
        while batch := list(islice(pairs, self._behavior.micro_batch)):
            segments, pictures = zip(*batch, strict=True)
            seen += len(segments)
            for prompt in clip.prompts:
                asked = self._prepare(pictures, [PROMPTS[cast(Prompt, prompt)]])
                texts = in_halves(self._write, self._prepare, asked)
                rows += [
                    {"segment": s.number, "prompt": prompt, "start_s": s.start_s, "end_s": s.end_s, "text": text}
                    for s, text in zip(segments, texts, strict=True)
                ]
        rows.sort(key=lambda row: (row["segment"], clip.prompts.index(row["prompt"])))
        return extracted(pa.Table.from_pylist(rows, schema=schema.DESCRIPTION), clip, seen)

    def _prepare(self, shown: tuple[Shown, ...], prompts: list[str]) -> Asked:
        """Rows end together: what is written follows the last word of each."""
        chats = [self._checkpoint.chat(prompts[0])] * len(shown)
        return Asked(shown, prompts, self._checkpoint.inputs(shown, chats, padding_side="left"), [])

    @torch.inference_mode()
    def _write(self, asked: Asked) -> list[str]:
        written = self._checkpoint.model.generate(**asked.inputs, generation_config=self._how)
        new = written[:, asked.inputs["input_ids"].shape[1] :]
        texts: list[str] = self._checkpoint.processor.batch_decode(new, skip_special_tokens=True)
        return [text.strip() for text in texts]
