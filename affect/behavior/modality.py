"""Records of the behaviour modality, and of text descriptions, which no model reads."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from jaxtyping import Float
from numpy import ndarray
from safetensors import SafetensorError, safe_open

from affect import weights
from affect.behavior import part
from affect.behavior.part import BehaviorPart
from affect.behavior.prompt import PROMPTS, QUESTIONS, RATING_VERSION, VERSION
from affect.corpus.probe import Probe
from affect.modality import Evidence, Extractor, Kind, Modality, Work, millions
from affect.settings import models
from affect.settings.run import Run
from affect.settings.spaces import Range, under
from affect.storage import schema
from affect.storage.store import Store

QWEN_WEIGHTS = (3.6e9, 0.41e9)
"""Number of weights of Qwen3-VL-4B's decoder and vision tower, assumed for every Hugging Face id."""
PICTURE_S, TOKEN_S = 0.004, 0.02
"""Seconds for decoding and preparing a frame, and minimum seconds for generating a token."""
WRITTEN_TOKENS = 60
"""Assumed tokens of a description."""
QUESTION_TOKENS = 50
"""Assumed tokens of a question of the rating."""


class Behavior(Modality):
    """Features: vision-language states of every segment, and the model's rating. Model: Mamba over the states."""

    name = "behavior"
    rows = schema.BEHAVIOR
    finite = ("multimodal", "vision", "patches")
    by_person = True
    bytes_per_s = 30e3
    model = models.Mamba
    space = under(  # the authors' grid for their Mamba
        "mamba",
        {
            "layers": (8, 10, 12),
            "hidden": (128, 256, 384),
            "kernel": (5, 6, 7),
            "dropout": (0.1, 0.2),
            "fit.weight_decay": (1e-4, 1e-3),
            "fit.learning_rate": Range(3e-4, 5e-4),
        },
    )
    demo_space = under("mamba", {"hidden": (32, 64), "layers": (1, 2), "fit.learning_rate": Range(5e-4, 5e-3)})
    evidence = "behaviour seen"
    no_evidence = "the vision-language model has no state"
    rated_with = "--behavior.rate"

    def rows_of(self, run: Run) -> pa.Schema:
        """Rows of states, with a column of ratings if the model rates."""
        return part.rows_schema(run.behavior)

    def extractor(self, run: Run, device: str) -> Extractor:
        """Loads the vision-language model."""
        from affect.behavior.clip import BehaviorClip

        return BehaviorClip(run.behavior, device)

    def work(self, run: Run, probe: Probe) -> Work:
        """One prefill per segment, with two questions if the model rates."""
        return _work(run, probe, asked=2 * QUESTION_TOKENS if run.behavior.rate else 0)

    def content(self, run: Run) -> list[str]:
        """Identities of weights and prompts, and of the questions if the model rates."""
        questions = _questions(run)
        return [*_content(run), *([f"rating {RATING_VERSION}", *questions] if questions else [])]

    def checked_on_nodes(self, run: Run) -> bool:
        """True: the checkpoint is large."""
        return True

    def check_weights(self, run: Run) -> None:
        """Downloads the checkpoint and checks that it is usable."""
        from affect.behavior import checkpoint

        checkpoint.check(run.behavior, [*PROMPTS.values(), *_questions(run)], rates=run.behavior.rate)

    def part(self, evidence: Evidence) -> BehaviorPart:
        """States of each segment and of its half-second patches."""
        return part.from_evidence(evidence)

    def tables(self, part_: BehaviorPart) -> dict[str, pa.Table]:
        """One table, ``behavior``."""
        return {self.name: part.to_table(part_)}

    def load(self, store: Store, keys: Mapping[str, str]) -> BehaviorPart:
        """Reads the table."""
        return part.from_table(store.get(keys[self.name]).table)

    def num_ratings(self, run: Run) -> int:
        """Valence and arousal, if the model rates."""
        return part.NUM_RATINGS if run.behavior.rate else 0

    def ratings(self, evidence: Evidence) -> Float[ndarray, "frames 2"]:
        """The model's valence and arousal."""
        return part.ratings_from_evidence(evidence)

    def width(self, part_: BehaviorPart) -> int:
        """Width of a state."""
        return part_.multimodal.shape[1]

    def task(self, settings: Any, widths: Mapping[str, int], segment_samples: int) -> Any:  # noqa: ANN401
        """Task on windows of segments, or of half seconds."""
        from affect.behavior.task import BehaviorTask

        return BehaviorTask(settings, widths[self.name])

    def points_per_s(self, run: Run, fps: float) -> float:
        """Two, for states of half seconds."""
        return 2.0

    def title(self, settings: Mapping[str, Any], upstream: Sequence[str]) -> str:
        """Its name, with the input states if they are not the multimodal ones."""
        return {"vision": "behavior (vision only)", "dense": "behavior (dense)"}.get(settings["states"], self.name)


class Description(Kind):
    """Features: a text description of every segment. No model reads them."""

    name = "description"
    rows = schema.DESCRIPTION
    by_person = True
    bytes_per_s = 300.0

    def extractor(self, run: Run, device: str) -> Extractor:
        """Loads the vision-language model for text generation."""
        from affect.behavior.describe import DescriptionClip

        return DescriptionClip(run.behavior, run.description, device)

    def work(self, run: Run, probe: Probe) -> Work:
        """One prefill per segment, and the tokens of its text."""
        return _work(run, probe, written=WRITTEN_TOKENS)

    def content(self, run: Run) -> list[str]:
        """Identities of weights and prompts."""
        return _content(run)

    def addressed(self, run: Run) -> Any:  # noqa: ANN401 -- plain values
        """Settings of the behaviour, except whether it rates, and of the description."""
        return [dataclasses.replace(run.behavior, rate=False, compile=False).addressed(), run.description.addressed()]

    def checked_on_nodes(self, run: Run) -> bool:
        """True: the checkpoint is large."""
        return True

    def check_weights(self, run: Run) -> None:
        """Downloads the checkpoint and checks that it can generate text."""
        from affect.behavior import checkpoint

        checkpoint.check(run.behavior, list(PROMPTS.values()), run.description.max_tokens)


def _content(run: Run) -> list[str]:
    return [weights.identity(run.behavior.weights, run.behavior.revision), f"prompt {VERSION}", *PROMPTS.values()]


def _questions(run: Run) -> list[str]:
    """Texts of the rating's questions; empty if the model does not rate."""
    return [text for pair in QUESTIONS.values() for text in pair] if run.behavior.rate else []


def _work(run: Run, probe: Probe, *, written: int = 0, asked: int = 0) -> Work:
    """Work of the vision-language model: two operations per weight and token (vision tower: per patch).

    Args:
        run: the run.
        probe: probe of the video.
        written: tokens that are generated.
        asked: tokens that are read after the prompt.
    """
    from affect.behavior.checkpoint import PATCH_PX, frame_size

    decoder, tower = _qwen_weights(run.behavior.weights)
    width, height = frame_size(probe.width, probe.height, run.behavior)
    frames = min(run.behavior.max_frames, run.grid.segment_s * run.behavior.frames_per_second)
    tokens = frames / 2 * (width // PATCH_PX) * (height // PATCH_PX)
    operations = 2 * (decoder * (tokens + written + asked) + tower * 4 * tokens)
    words = f"{millions(decoder + tower)} weights, {tokens:,.0f} tokens a segment"
    other_s = frames * PICTURE_S + written * TOKEN_S
    return Work(operations / run.grid.hop_s, other_s / run.grid.hop_s, words)


def _qwen_weights(name: str) -> tuple[float, float]:
    """Number of weights of a checkpoint's decoder and vision tower."""
    if not weights.is_path(name):
        return QWEN_WEIGHTS
    sizes = _sizes(sorted(weights.folder(name).glob("*.safetensors")))
    tower = sum(size for tensor, size in sizes if "visual" in tensor)
    decoder = sum(size for tensor, size in sizes if "visual" not in tensor and "embed" not in tensor)
    return float(decoder), float(tower)


def _sizes(paths: Iterable[Path]) -> list[tuple[str, int]]:
    """Names and sizes of tensors, from the files' headers."""
    found = []
    for path in paths:
        try:
            with safe_open(path, "pt") as tensors:
                found += [(name, math.prod(tensors.get_slice(name).get_shape())) for name in tensors.keys()]
        except (OSError, SafetensorError) as error:
            raise weights.load_error(str(path), error) from error
    return found
