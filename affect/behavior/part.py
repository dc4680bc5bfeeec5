"""A track's behaviour part: built from rows of clips, converted to and from tables."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from affect import timeline
from affect.corpus.encoder_ratings import ratings_per_frame
from affect.modality import Evidence
from affect.settings.extraction import Behavior
from affect.storage import schema
from affect.storage.columns import array, list_column, matrix, ragged

NUM_RATINGS = 2
"""Ratings by the vision-language model: valence, arousal."""


def rows_schema(settings: Behavior) -> pa.Schema:
    """Schema of a clip's rows: with a column of ratings only if the model rates."""
    return schema.BEHAVIOR.append(schema.RATING) if settings.rate else schema.BEHAVIOR


@dataclass(frozen=True)
class Patches:
    """Vision-language states of temporal patches of about half a second, in order of segments.

    Args:
        states: mean state of each patch.
        ranges: frames ``[f0, f1)`` of each patch; empty if the labels end before it.
        segment: number of each patch's segment.
    """

    states: Float[ndarray, "patches D"]
    ranges: Int[ndarray, "patches 2"]
    segment: Int[ndarray, " patches"]

    @staticmethod
    def none() -> "Patches":
        """Patches of a track without behaviour."""
        nothing = np.zeros((0, 0), dtype=np.float32)
        return Patches(nothing, np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class BehaviorPart:
    """Vision-language states of a track's segments.

    Args:
        valid: whether a segment has states.
        multimodal: state of the last token, 0 for a segment without states.
        vision: state at the last end-of-vision token, 0 for a segment without states.
        patches: states of half seconds, of segments with states.
    """

    valid: Bool[ndarray, " segments"]
    multimodal: Float[ndarray, "segments D"]
    vision: Float[ndarray, "segments D"]
    patches: Patches


def from_evidence(evidence: Evidence) -> BehaviorPart:
    """Behaviour part of a person: states for the person's prompt, or for the neutral one."""
    table, num = _rows_of_person(evidence), len(evidence.ranges)
    index = array(table["segment"])
    valid = np.zeros(num, dtype=bool)
    valid[index] = True
    states = {}
    for name in ("multimodal", "vision"):
        values = matrix(table[name])
        states[name] = np.zeros((num, values.shape[1]), dtype=np.float32)
        states[name][index] = values
    return BehaviorPart(valid, **states, patches=_patches(table, evidence))


def ratings_from_evidence(evidence: Evidence) -> Float[ndarray, "frames 2"]:
    """The model's valence and arousal at each frame: mean over the segments that cover it, NaN without."""
    return ratings_per_frame(_rows_of_person(evidence), evidence.segments.ranges, evidence.num_frames, NUM_RATINGS)


def _rows_of_person(evidence: Evidence) -> pa.Table:
    """Rows of the person's prompt, or of the neutral one."""
    table = evidence.tables["behavior"]
    prompts = table["prompt"].to_pylist()
    prompt = evidence.person if evidence.person in prompts else "neutral"
    return table.filter(pa.array([p == prompt for p in prompts], type=pa.bool_()))


def _patches(table: pa.Table, evidence: Evidence) -> Patches:
    """States of half seconds, with their frames of the track."""
    states, frames, owner = [], [], []
    columns = (table[name] for name in ("segment", "patches", "shown_s"))
    for segment, values, shown_s in zip(*columns, strict=True):
        number = segment.as_py()
        ranges = evidence.ranges[number].tolist()
        patches = timeline.patch_ranges(evidence.clock.time_s, shown_s.values.to_numpy(), *ranges)
        states.append(values.values.flatten().to_numpy().reshape(len(patches), -1))
        frames.append(patches)
        owner.append(np.full(len(patches), number))
    if not states:
        return Patches.none()
    return Patches(
        np.concatenate(states), np.minimum(np.concatenate(frames), evidence.num_frames), np.concatenate(owner)
    )


def to_table(part: BehaviorPart) -> pa.Table:
    """Table of a part for the store."""
    patches, num = part.patches, len(part.valid)
    counts = np.bincount(patches.segment, minlength=num)
    columns = {
        "segment": np.arange(num),
        "valid": part.valid,
        "multimodal": list_column(part.multimodal, pa.float16()),
        "vision": list_column(part.vision, pa.float16()),
        "patches": ragged(patches.states.reshape(-1), counts * patches.states.shape[1], pa.float16()),
        "patch_first_frame": ragged(patches.ranges[:, 0], counts, pa.int32()),
        "patch_end_frame": ragged(patches.ranges[:, 1], counts, pa.int32()),
    }
    return pa.table(columns).cast(schema.TRACK["behavior"])


def from_table(table: pa.Table) -> BehaviorPart:
    """Part from its table in the store."""
    values, first, end = (table[n].chunk(0) for n in ("patches", "patch_first_frame", "patch_end_frame"))
    counts = first.value_lengths().to_numpy()
    patches = Patches.none()
    if counts.any():
        ranges = np.stack([first.flatten().to_numpy(), end.flatten().to_numpy()], axis=1)
        states = values.flatten().to_numpy().reshape(len(ranges), -1)
        patches = Patches(states, ranges, np.repeat(np.arange(len(counts)), counts))
    return BehaviorPart(array(table["valid"]), matrix(table["multimodal"]), matrix(table["vision"]), patches)
