"""How the behaviour's Mamba is fed: segments, half seconds, and what has no state."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from affect import timeline
from affect.behavior.part import BehaviorPart, Patches
from affect.behavior.task import BehaviorTask
from affect.corpus.track import Segments, Track
from affect.learning import batches
from affect.learning.fit import fit
from affect.settings.models import Mamba
from affect.settings.training import Fit, Loss
from affect.tracks.synthetic import make_track

CPU = torch.device("cpu")
WIDTH, FPS = 6, 10.0
FIT = Fit(learning_rate=1e-2, max_epochs=30, stop_patience=30, loss=Loss(ccc_over="batch"))
SMALL = Mamba(
    hidden=8, layers=1, state=2, head_hidden=8, dropout=0.0, head_dropout=0.0, window_segments=4, window_hop_segments=2
)
DENSE = replace(SMALL, states="dense", fit=FIT)


def patches_of(segments: Segments, clock: timeline.Timestamps, gold: np.ndarray, valid: np.ndarray) -> Patches:
    """Half seconds whose states are a mixture of their own valence and arousal."""
    ranges, owner = [], []
    for number, (start, end) in enumerate(zip(segments.start_s, segments.end_s, strict=True)):
        if valid[number]:
            edges = [clock.frames_before(time) for time in np.linspace(start, end, 9 if end - start > 3.9 else 3)]
            ranges += list(itertools.pairwise(edges))
            owner += [number] * (len(edges) - 1)
    mixing = np.random.default_rng(1).normal(size=(2, WIDTH))
    means = timeline.range_means(gold, np.array(ranges))
    return Patches((means @ mixing).astype(np.float16), np.array(ranges), np.array(owner))


def track(num_frames: int, seed: int, broken: tuple[int, ...] = ()) -> Track:
    """A track whose segments' states say its valence and arousal; those of broken segments are missing."""
    made = make_track("a", num_frames, np.random.default_rng(seed), fps=FPS, width=WIDTH)
    num = len(made.segments.ranges)
    valid = ~np.isin(np.arange(num), broken)
    mixing = np.random.default_rng(0).normal(size=(2, WIDTH))
    states = (made.segment_gold @ mixing * valid[:, None]).astype(np.float16)
    patches = patches_of(made.segments, timeline.Timestamps(made.time_s), made.gold, valid)
    return replace(made, parts={"behavior": BehaviorPart(valid, states, -states, patches)})


def test_a_window_of_half_seconds_is_as_long_as_its_segments():
    one = track(195, 0)  # nine full segments and a tail
    assert len(one.segments.ranges) == 9
    assert BehaviorTask(SMALL, WIDTH).windows(one) == [(0, 4), (2, 6), (4, 8), (6, 9)]
    assert BehaviorTask(DENSE, WIDTH).windows(one) == [(0, 32), (16, 48), (32, 64), (48, 66)]


def test_half_seconds_come_in_time_order_with_their_own_targets():
    one = track(195, 0)
    example = BehaviorTask(DENSE, WIDTH).example(one, (8, 24))
    assert np.array_equal(example.inputs["x"], one.parts["behavior"].patches.states[8:24])
    for i, (first, last) in enumerate(one.parts["behavior"].patches.ranges[8:24]):
        assert example.gold[i] == pytest.approx(one.gold[first:last].mean(axis=0))
    assert example.annotated.all()


def test_a_half_second_without_any_frame_or_annotation_is_read_and_not_learned_from():
    one = track(195, 0)
    gold = one.gold.copy()
    gold[:30] = np.nan
    patches = one.parts["behavior"].patches
    ranges = patches.ranges.copy()
    ranges[20, 1] = ranges[20, 0]
    part = replace(one.parts["behavior"], patches=replace(patches, ranges=ranges))
    bare = replace(one, gold=gold, parts={"behavior": part})
    example = BehaviorTask(DENSE, WIDTH).example(bare, (0, 32))
    assert not example.annotated[:6].any() and not example.annotated[20] and example.annotated[21:].all()
    assert len(example.inputs["x"]) == 32


def test_a_segment_without_states_has_no_half_seconds_and_takes_the_nearest_state_as_a_segment():
    one = track(195, 0, broken=(0, 3))
    dense, plain = BehaviorTask(DENSE, WIDTH), BehaviorTask(SMALL, WIDTH)
    assert len(one.parts["behavior"].patches.states) == 7 * 8 - 6
    example = plain.example(one, (0, 4))
    assert np.array_equal(example.inputs["x"], one.parts["behavior"].multimodal[[1, 1, 2, 2]])
    assert example.annotated.tolist() == [False, True, True, False]
    model = dense.build().eval()
    said = dense.series(one, batches.run(dense, model, one, CPU))
    assert not said.valid[:20].any() and said.valid[20:].all()  # segment 1 begins at two seconds
    assert np.array_equal(said.prediction[0], said.prediction[20])


@pytest.mark.parametrize("states", ["multimodal", "vision", "dense"])
def test_a_track_without_any_state_has_no_windows_and_no_evidence(states: str):
    one = track(195, 0)
    nothing = replace(one.parts["behavior"], valid=np.zeros(9, dtype=bool), patches=Patches.none())
    task = BehaviorTask(replace(SMALL, states=states), WIDTH)
    unseen = replace(one, parts={"behavior": nothing})
    assert task.windows(unseen) == [] and not task.trains_on(unseen, (0, 4))
    said = task.series(unseen, batches.run(task, task.build(), unseen, CPU))
    assert not said.valid.any() and said.embedding.shape == (195, 8)


def test_what_is_said_of_a_half_second_is_said_of_its_frames_and_averaged_where_segments_overlap():
    one = track(195, 0)
    task = BehaviorTask(DENSE, WIDTH)
    outputs = batches.run(task, task.build().eval(), one, CPU)
    said = task.series(one, outputs)
    points = np.zeros((66, 2))
    count = np.zeros(66)
    for (start, end), values in zip(outputs.windows, outputs.predictions, strict=True):
        points[start:end] += values[: end - start]
        count[start:end] += 1
    points /= count[:, None]
    for frame in (0, 33, 100, 194):
        covering = [i for i, (a, b) in enumerate(one.parts["behavior"].patches.ranges) if a <= frame < b]
        assert len(covering) in (1, 2)
        assert said.prediction[frame] == pytest.approx(points[covering].mean(axis=0), abs=1e-6)


def test_half_seconds_say_what_changes_within_a_segment():
    tracks = [track(200 + 10 * seed, seed) for seed in range(6)]
    scores = []
    for settings in (replace(SMALL, fit=FIT), DENSE):
        task = BehaviorTask(settings, WIDTH)
        fitted = fit(task, tracks[:4], tracks[4:], device=CPU)
        scores.append(float(fitted.best.ccc[2]))
    assert scores[1] > scores[0] + 0.05  # the segments' means are all that the first one can know
