"""Descriptions of a clip in words: text that the vision-language model generates per segment and prompt.

Source: spec section 4.3 (an optional output).
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any, cast

import pyarrow as pa
import torch

from affect.behavior.checkpoint import Checkpoint, SegmentFrames
from affect.behavior.frames import segment_frames, share_done, with_status
from affect.behavior.prompt import PROMPTS, Prompt
from affect.behavior.qwen import InMemory, MicroBatch
from affect.corpus.clip import Clip
from affect.settings.extraction import Behavior, Description
from affect.storage import schema
from affect.storage.extracted import Extracted, Part, Save, discard_part


class DescriptionClip:
    """Generates one text per segment and prompt of a clip, by greedy decoding.

    Args:
        behavior: weights, frames, sizes.
        settings: maximal length of a text.
        device: ``cuda`` or ``cpu``; the available one if None.
    """

    def __init__(self, behavior: Behavior, settings: Description, device: str | None = None) -> None:
        """Loads the model with its language-model head."""
        from transformers import GenerationConfig

        self._behavior = behavior
        self._checkpoint = Checkpoint(behavior, list(PROMPTS.values()), device, max_new_tokens=settings.max_tokens)
        self._in_memory = InMemory(self._generate, self._prepare)
        tokenizer = self._checkpoint.processor.tokenizer
        pad, end = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
        self._generation = GenerationConfig(
            do_sample=False, max_new_tokens=settings.max_tokens, pad_token_id=pad, eos_token_id=[end, pad]
        )

    def __call__(self, clip: Clip, partial: Part | None = None, save: Save = discard_part) -> Extracted:
        """Describes a clip.

        Args:
            clip: the clip.
            partial: saved part of the clip to continue from; None to start at its first segment.
            save: called with all results so far after every micro-batch.

        Raises:
            MediaError: the video cannot be opened.
        """
        tables = [partial.table if partial else schema.DESCRIPTION.empty_table()]
        num_shown = partial.counts["num_shown"] if partial else 0
        pairs = segment_frames(clip, self._behavior, partial.last if partial else -1)
        while batch := list(islice(pairs, self._behavior.micro_batch)):
            segments, frames = zip(*batch, strict=True)
            num_shown += sum(len(segment.time_s) for segment in frames)
            rows: list[dict[str, Any]] = []
            for prompt in clip.prompts:
                micro_batch = MicroBatch(frames, [PROMPTS[cast(Prompt, prompt)]])
                texts = self._in_memory.run(micro_batch)
                rows += [
                    {"video": clip.probe.path, "prompt": prompt, "text": text}
                    | {"segment": segment.number, "start_s": segment.start_s, "end_s": segment.end_s}
                    for segment, text in zip(segments, texts, strict=True)
                ]
            rows.sort(key=lambda row: (row["segment"], clip.prompts.index(row["prompt"])))
            tables.append(pa.Table.from_pylist(rows, schema=schema.DESCRIPTION))
            last = segments[-1].number
            save(Part(pa.concat_tables(tables), last, share_done(clip, last), {"num_shown": num_shown}))
        return with_status(pa.concat_tables(tables), clip, self._behavior, num_shown)

    def _prepare(self, segments: Sequence[SegmentFrames], prompts: Sequence[str]) -> MicroBatch:
        """Makes the input tensors."""
        chats = [self._checkpoint.chat(prompts[0])] * len(segments)
        return MicroBatch(segments, prompts, self._checkpoint.inputs(segments, chats))

    @torch.inference_mode()
    def _generate(self, micro_batch: MicroBatch) -> list[str]:
        assert micro_batch.inputs
        tokens = self._checkpoint.model.generate(**micro_batch.inputs, generation_config=self._generation)
        new = tokens[:, micro_batch.inputs["input_ids"].shape[1] :]
        texts: list[str] = self._checkpoint.processor.batch_decode(new, skip_special_tokens=True)
        return [text.strip() for text in texts]
