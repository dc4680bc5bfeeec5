"""The prefill against transformers' own forward pass: states, waits for a GPU, calls of attention, compiled layers."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from affect.behavior.checkpoint import Checkpoint, SegmentFrames
from affect.behavior.prompt import PROMPTS
from affect.behavior.qwen import MicroBatch, Qwen
from affect.console import tiny
from affect.settings.extraction import Behavior
from tests.behavior.waits import Waits
from tests.jobs import ROOT

TEXTS = list(PROMPTS.values())
CLOSE = 1e-5
"""Largest difference, absolute; states are of the order of 1."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Behavior:
    """A tiny checkpoint."""
    path = tmp_path_factory.mktemp("qwen")
    tiny.make_qwen(path)
    return Behavior(weights=str(path))


@pytest.fixture(scope="module")
def qwen(settings: Behavior) -> Qwen:
    """It, loaded as the real one is."""
    return Qwen(settings, TEXTS)


@pytest.fixture(scope="module")
def library(settings: Behavior) -> Checkpoint:
    """It, with transformers' own forward pass."""
    return Checkpoint(settings, TEXTS)


def segments(*sizes: tuple[int, int, int]) -> list[SegmentFrames]:
    """Random pictures four times a second, by number of frames, height and width."""
    rng = np.random.default_rng(len(sizes))
    return [
        SegmentFrames(rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8), np.arange(n) / 4)
        for n, height, width in sizes
    ]


SHAPES = [[(16, 64, 64)] * 4, [(16, 64, 96), (9, 64, 96), (3, 64, 96)], [(8, 64, 96), (5, 96, 64), (1, 64, 64)]]
"""Full segments, segments at a clip's end, pictures of several sizes."""


def plain(library: Checkpoint, shown: list[SegmentFrames]) -> tuple[torch.Tensor, torch.Tensor]:
    """States of all tokens by transformers, and which tokens are no padding."""
    batch = library.process(shown, [library.chat(TEXTS[0])] * len(shown))
    with torch.inference_mode():
        return library.model(**batch, use_cache=False).last_hidden_state, batch["attention_mask"].bool()


def on_gpu(asked: MicroBatch) -> tuple[Any, ...]:
    """Tensors of a micro-batch that the model reads."""
    assert asked.layout
    encoder = [asked.layout.encoder[name] for name in ("interp_indices", "interp_weights", "position_ids")]
    return asked.inputs, asked.layout[:6], encoder, asked.prompt_tokens


@pytest.mark.numeric
@pytest.mark.parametrize("shapes", SHAPES)
def test_every_tokens_state_is_that_of_transformers_own_forward_pass(
    qwen: Qwen, library: Checkpoint, shapes: list[tuple[int, int, int]]
):
    from affect.behavior.prefill import prefill

    shown = segments(*shapes)
    asked = qwen.prepare(shown, TEXTS[:1])
    assert asked.inputs and asked.layout
    with torch.inference_mode():
        found = prefill(qwen._model, asked.inputs["input_ids"], asked.inputs["pixel_values_videos"], asked.layout)
    expected, valid = plain(library, shown)
    assert expected.abs().mean() > 0.3
    torch.testing.assert_close(found.view_as(expected)[valid], expected[valid], atol=CLOSE, rtol=CLOSE)


@pytest.mark.parametrize("prompts", [TEXTS[:1], TEXTS], ids=["one prompt", "three prompts"])
@pytest.mark.parametrize("shapes", SHAPES)
def test_a_gpu_is_waited_for_once_when_the_states_are_copied(
    qwen: Qwen, shapes: list[tuple[int, int, int]], prompts: list[str]
):
    asked = qwen.prepare(segments(*shapes), prompts)
    with Waits(on_gpu(asked)) as waits:
        qwen.states(asked)
    assert waits.counts == {"cpu": 1}


def test_transformers_own_forward_pass_waits_some_forty_times_per_segment(library: Checkpoint):
    batch = library.process(segments(*SHAPES[0]), [library.chat(TEXTS[0])] * 4)
    with Waits(batch) as waits, torch.inference_mode():
        library.model(**batch, use_cache=False)
    assert waits.counts.total() > 100 and {"item", "tolist", "__bool__", "__getitem__"} <= waits.counts.keys()


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[tuple[int, ...]]]:
    """Shapes of the queries of all calls of attention since the last call."""
    attention, shapes = torch.nn.functional.scaled_dot_product_attention, []

    def heard(query: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        shapes.append(tuple(query.shape))
        return attention(query, *args, **options)

    def read() -> list[tuple[int, ...]]:
        found = list(shapes)
        shapes.clear()
        return found

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", heard)
    return read


def test_patches_of_one_size_are_attended_to_in_one_call(
    qwen: Qwen, library: Checkpoint, attended: Callable[[], list[tuple[int, ...]]]
):
    asked = qwen.prepare(segments(*SHAPES[0]), TEXTS[:1])
    attended()
    qwen.states(asked)
    vision = [shape for shape in attended() if shape[2] == 16]  # patches of 4 x 4 tokens
    assert [shape[0] for shape in vision] == [4 * 8] * len(qwen._model.visual.blocks)
    plain(library, segments(*SHAPES[0]))
    assert sum(shape[2] == 16 for shape in attended()) == 4 * 8 * len(qwen._model.visual.blocks)


@pytest.mark.slow
def test_compiled_layers_are_whole_graphs_give_the_same_states_and_serve_every_size(settings: Behavior):
    """In a process without run-time checks of shapes, which torch cannot trace."""
    command = [sys.executable, "tests/behavior/compiled.py", settings.weights]
    said = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    # One layer's graph serves all of the vision encoder, sizes and lengths, another's the decoder; several prompts need
    # the cache and run as they are; torch compiles a batch of one apart.
    assert said.stdout.endswith("2 2 2 2 3 graphs, 0 breaks\n"), said.stderr
