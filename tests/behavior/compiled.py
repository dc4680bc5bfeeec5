"""Compiled layers against layers as they are, over several sizes and prompts. Argument: folder of a checkpoint."""

import sys

import numpy as np
from torch._dynamo.utils import counters

from affect.behavior.checkpoint import SegmentFrames
from affect.behavior.qwen import Qwen
from affect.settings.extraction import Behavior
from tests.behavior.test_prefill import CLOSE, SHAPES, TEXTS, segments


def num_graphs(models: list[Qwen], shown: list[SegmentFrames], prompts: list[str]) -> int:
    """Graphs compiled so far, after both models have computed the same segments."""
    compiled, plain = (model(shown, prompts) for model in models)
    for mine, other in zip(compiled, plain, strict=True):
        for a, b in zip(mine, other, strict=True):
            for state, expected in zip(a[:3], b[:3], strict=True):
                np.testing.assert_allclose(state, expected, atol=CLOSE, rtol=CLOSE)
    return int(counters["stats"]["unique_graphs"])


models = [Qwen(Behavior(weights=sys.argv[1], compile=on), TEXTS) for on in (True, False)]
steps = [
    (segments(*SHAPES[0]), TEXTS[:1]),
    (segments(*[(12, 96, 64)] * 3), TEXTS[:1]),
    (segments(*SHAPES[1]), TEXTS[:1]),
    (segments(*SHAPES[0]), TEXTS),
    (segments((16, 64, 64)), TEXTS[:1]),
]
counts = [num_graphs(models, *step) for step in steps]
print(*counts, "graphs,", sum(counters["graph_break"].values()), "breaks")
