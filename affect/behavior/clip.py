"""Behaviour of a clip: micro-batches of segments, prepared ahead of the model, and their states."""

from collections.abc import Iterator
from itertools import islice
from typing import cast

import numpy as np
import pyarrow as pa

from affect.behavior.checkpoint import Shown
from affect.behavior.frames import Segment, extracted, share, shown
from affect.behavior.prompt import PROMPTS, Prompt
from affect.behavior.qwen import Asked, Qwen, States
from affect.corpus.ahead import ahead
from affect.corpus.clip import Clip
from affect.settings.extraction import Behavior
from affect.storage import schema
from affect.storage.extracted import Extracted, Part, Save, keep_none

BATCHES_AHEAD = 2
"""Micro-batches that are decoded and prepared while the model computes."""


class BehaviorClip:
    """Turns a clip into one row per segment and prompt.

    Args:
        settings: weights, frames, sizes.
        device: ``cuda`` or ``cpu``; the one at hand if not given.
    """

    def __init__(self, settings: Behavior, device: str | None = None) -> None:
        """Load the model."""
        self._settings = settings
        self._model = Qwen(settings, list(PROMPTS.values()), device)

    def __call__(self, clip: Clip, begun: Part | None = None, save: Save = keep_none) -> Extracted:
        """Extract a clip.

        Args:
            clip: the clip.
            begun: a part of it that is done; none if not given.
            save: hears of every micro-batch.

        Raises:
            MediaError: the video cannot be opened.
        """
        tables = [begun.table if begun else schema.BEHAVIOR.empty_table()]
        num_shown, broken, fewer = begun.counts.values() if begun else (0, [], [])
        for segments, asked in ahead(self._asked(clip, begun.last if begun else -1), BATCHES_AHEAD):
            rows: list[dict[str, object]] = []
            for segment, pictures, answers in zip(segments, asked.shown, self._model.states(asked), strict=True):
                num_shown += len(pictures.time_s)
                own = [_row(segment, pictures, *pair) for pair in zip(clip.prompts, answers, strict=True)]
                rows += [row for row in own if row]
                if None in own:
                    broken.append(segment.number)
                if any(states.micro_batch < len(segments) for states in answers):
                    fewer.append(segment.number)
            tables.append(pa.Table.from_pylist(rows, schema=schema.BEHAVIOR))
            counts = {"num_shown": num_shown, "broken": broken, "fewer": fewer}
            last = segments[-1].number
            save(Part(pa.concat_tables(tables), last, share(clip, last), counts))
        reasons = []
        if broken:
            reasons = [f"states of {len(broken)} of {len(clip.segments)} segments are not finite: {_some(broken)}"]
        found = extracted(pa.concat_tables(tables), clip, self._settings, num_shown, reasons)
        if not fewer:
            return found
        note = (
            f"{len(fewer)} of {len(clip.segments)} segments were computed fewer at once than micro_batch for lack of "
            f"memory, which changes last digits: {_some(fewer)}"
        )
        return found._replace(reason="; ".join(filter(None, [found.reason, note])))

    def _asked(self, clip: Clip, after: int) -> Iterator[tuple[list[Segment], Asked]]:
        """Micro-batches of segments as the model reads them."""
        prompts = [PROMPTS[cast(Prompt, prompt)] for prompt in clip.prompts]
        pairs = shown(clip, self._settings, after)
        while batch := list(islice(pairs, self._settings.micro_batch)):
            segments, pictures = zip(*batch, strict=True)
            yield list(segments), self._model.prepare_ahead(pictures, prompts)


def _row(segment: Segment, pictures: Shown, prompt: str, states: States) -> dict[str, object] | None:
    """A row of the table; None if a state has no finite number in 16 bits."""
    with np.errstate(over="ignore"):
        multimodal, vision, patches = (value.astype(np.float16) for value in states[:3])
    if not all(np.isfinite(value).all() for value in (multimodal, vision, patches)):
        return None
    return {
        "segment": segment.number,
        "prompt": prompt,
        "start_s": segment.start_s,
        "end_s": segment.end_s,
        "multimodal": multimodal,
        "vision": vision,
        "patches": list(patches),
        "shown_s": segment.start_s + pictures.time_s,
        "micro_batch": states.micro_batch,
    }


def _some(numbers: list[int]) -> str:
    """The first few of them."""
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
