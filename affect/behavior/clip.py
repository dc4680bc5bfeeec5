"""Behaviour of a clip, one row per segment and prompt: hidden states of the vision-language model, and its rating.

Source: paper (arXiv 2603.13056), section 3.3; spec section 4.3.
"""

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any, cast

import numpy as np
import pyarrow as pa

from affect.behavior.checkpoint import SegmentFrames
from affect.behavior.frames import Segment, segment_frames, share_done, with_status
from affect.behavior.part import rows_schema
from affect.behavior.prompt import PROMPTS, Prompt, questions_of_prompts
from affect.behavior.qwen import MicroBatch, Qwen, States
from affect.corpus.clip import Clip
from affect.corpus.prefetch import prefetch
from affect.settings.extraction import Behavior
from affect.storage import schema
from affect.storage.extracted import Extracted, Part, Save, discard_part

BATCHES_AHEAD = 2
"""Micro-batches that are prepared in a thread while the model computes."""
SEGMENTS_AHEAD = 2
"""Segments that are decoded in another thread ahead of the preparation."""


class BehaviorClip:
    """Extracts one row per segment and prompt of a clip.

    Args:
        settings: weights, frames, sizes, whether the model rates.
        device: ``cuda`` or ``cpu``; the available one if None.
    """

    def __init__(self, settings: Behavior, device: str | None = None) -> None:
        """Loads the model."""
        self._settings, self._schema = settings, rows_schema(settings)
        self._model = Qwen(settings, list(PROMPTS.values()), device, questions_of_prompts() if settings.rate else None)

    def __call__(self, clip: Clip, partial: Part | None = None, save: Save = discard_part) -> Extracted:
        """Extracts a clip.

        Args:
            clip: the clip.
            partial: saved part of the clip to continue from; None to start at its first segment.
            save: called with all results so far after every micro-batch.

        Raises:
            MediaError: the video cannot be opened.
        """
        tables = [partial.table if partial else self._schema.empty_table()]
        counts: dict[str, Any] = partial.counts if partial else {"num_shown": 0, "broken": [], "fewer": []}
        num_shown, broken, fewer = counts["num_shown"], counts["broken"], counts["fewer"]
        unrated = counts.get("unrated", [])
        after = partial.last if partial else -1
        for segments, micro_batch, whole in prefetch(self._micro_batches(clip, after), BATCHES_AHEAD, counted=True):
            rows: list[dict[str, object]] = []
            states_of = zip(segments, micro_batch.segments, self._model.states(micro_batch), strict=True)
            for segment, frames, by_prompt in states_of:
                num_shown += len(frames.time_s)
                new_rows = [_row(segment, frames, *pair) for pair in zip(clip.prompts, by_prompt, strict=True)]
                rows += [row for row in new_rows if row]
                if None in new_rows:
                    broken.append(segment.number)
                if any(states.micro_batch < whole for states in by_prompt):
                    fewer.append(segment.number)
                if self._settings.rate and any(row and schema.RATING.name not in row for row in new_rows):
                    unrated.append(segment.number)
            tables.append(pa.Table.from_pylist(rows, schema=self._schema))
            counts = {"num_shown": num_shown, "broken": broken, "fewer": fewer}
            counts |= {"unrated": unrated} if self._settings.rate else {}
            last = segments[-1].number
            save(Part(pa.concat_tables(tables), last, share_done(clip, last), counts))
        reasons = []
        if broken:
            reasons = [f"states of {len(broken)} of {len(clip.segments)} segments are not finite: {_some(broken)}"]
        if unrated:
            reasons += [f"ratings of {len(unrated)} of {len(clip.segments)} segments are not finite: {_some(unrated)}"]
        extracted = with_status(pa.concat_tables(tables), clip, self._settings, num_shown, reasons)
        if not fewer:
            return extracted
        note = (
            f"{len(fewer)} of {len(clip.segments)} segments were computed fewer at once than micro_batch for lack of "
            f"memory, which changes last digits: {_some(fewer)}"
        )
        return extracted._replace(reason="; ".join(filter(None, [extracted.reason, note])))

    def _micro_batches(self, clip: Clip, after: int) -> Iterator[tuple[list[Segment], MicroBatch, int]]:
        """Yields micro-batches of the segments after a number, prepared for the model.

        With each comes the number of segments that it would have if the GPU's memory were no limit.
        """
        prompts = [PROMPTS[cast(Prompt, prompt)] for prompt in clip.prompts]
        with closing(prefetch(segment_frames(clip, self._settings, after), SEGMENTS_AHEAD)) as pairs:
            while batch := list(islice(pairs, self._settings.micro_batch)):
                numbers, frames = zip(*batch, strict=True)
                segments = iter(numbers)
                for part in self._model.in_memory.parts(frames):
                    yield list(islice(segments, len(part))), self._model.prepare_ahead(part, prompts), len(batch)


def _row(segment: Segment, frames: SegmentFrames, prompt: str, states: States) -> dict[str, object] | None:
    """Builds a row of the table; None if a state is not finite in float16."""
    with np.errstate(over="ignore"):
        multimodal, vision, patches = (value.astype(np.float16) for value in states[:3])
    if not all(np.isfinite(value).all() for value in (multimodal, vision, patches)):
        return None
    row: dict[str, object] = {
        "segment": segment.number,
        "prompt": prompt,
        "start_s": segment.start_s,
        "end_s": segment.end_s,
        "multimodal": multimodal,
        "vision": vision,
        "patches": list(patches),
        "shown_s": segment.start_s + frames.time_s,
        "micro_batch": states.micro_batch,
    }
    if states.rating is not None and np.isfinite(states.rating).all():
        row[schema.RATING.name] = states.rating
    return row


def _some(numbers: list[int]) -> str:
    """Lists the first five numbers."""
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
