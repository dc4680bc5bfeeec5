"""Behaviour of a clip in words: what the vision-language model writes about each segment."""

from collections.abc import Sequence
from itertools import islice
from typing import Any, cast

import pyarrow as pa
import torch

from affect.behavior.checkpoint import Checkpoint, Shown
from affect.behavior.frames import extracted, share, shown
from affect.behavior.prompt import PROMPTS, Prompt
from affect.behavior.qwen import Asked, in_halves
from affect.corpus.clip import Clip
from affect.settings.extraction import Behavior, Description
from affect.storage import schema
from affect.storage.extracted import Extracted, Part, Save, keep_none


class DescriptionClip:
    """Turns a clip into one text per segment and prompt, by greedy decoding.

    Args:
        behavior: weights, frames, sizes.
        settings: how long a text may be.
        device: ``cuda`` or ``cpu``; the one at hand if not given.
    """

    def __init__(self, behavior: Behavior, settings: Description, device: str | None = None) -> None:
        """Load the model with the head that makes words."""
        from transformers import GenerationConfig

        self._behavior = behavior
        self._checkpoint = Checkpoint(behavior, list(PROMPTS.values()), device, max_written=settings.max_tokens)
        tokenizer = self._checkpoint.processor.tokenizer
        pad, end = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
        self._how = GenerationConfig(
            do_sample=False, max_new_tokens=settings.max_tokens, pad_token_id=pad, eos_token_id=[end, pad]
        )

    def __call__(self, clip: Clip, begun: Part | None = None, save: Save = keep_none) -> Extracted:
        """Describe a clip.

        Args:
            clip: the clip.
            begun: a part of it that is done; none if not given.
            save: hears of every micro-batch.

        Raises:
            MediaError: the video cannot be opened.
        """
        tables = [begun.table if begun else schema.DESCRIPTION.empty_table()]
        num_shown = begun.counts["num_shown"] if begun else 0
        pairs = shown(clip, self._behavior, begun.last if begun else -1)
        while batch := list(islice(pairs, self._behavior.micro_batch)):
            segments, pictures = zip(*batch, strict=True)
            num_shown += sum(len(segment.time_s) for segment in pictures)
            rows: list[dict[str, Any]] = []
            for prompt in clip.prompts:
                asked = Asked(pictures, [PROMPTS[cast(Prompt, prompt)]])
                texts = in_halves(self._write, self._prepare, asked)
                rows += [
                    {"video": clip.probe.path, "prompt": prompt, "text": text}
                    | {"segment": segment.number, "start_s": segment.start_s, "end_s": segment.end_s}
                    for segment, text in zip(segments, texts, strict=True)
                ]
            rows.sort(key=lambda row: (row["segment"], clip.prompts.index(row["prompt"])))
            tables.append(pa.Table.from_pylist(rows, schema=schema.DESCRIPTION))
            last = segments[-1].number
            save(Part(pa.concat_tables(tables), last, share(clip, last), {"num_shown": num_shown}))
        return extracted(pa.concat_tables(tables), clip, self._behavior, num_shown)

    def _prepare(self, segments: Sequence[Shown], prompts: Sequence[str]) -> Asked:
        """Rows end together: what is written follows the last word of each."""
        chats = [self._checkpoint.chat(prompts[0])] * len(segments)
        return Asked(segments, prompts, self._checkpoint.inputs(segments, chats, padding_side="left"))

    @torch.inference_mode()
    def _write(self, asked: Asked) -> list[str]:
        assert asked.inputs
        written = self._checkpoint.model.generate(**asked.inputs, generation_config=self._how)
        new = written[:, asked.inputs["input_ids"].shape[1] :]
        texts: list[str] = self._checkpoint.processor.batch_decode(new, skip_special_tokens=True)
        return [text.strip() for text in texts]
