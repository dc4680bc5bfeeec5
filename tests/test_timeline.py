"""Laws and worked examples of the time grid."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional

from affect import timeline
from affect.corpus.clip import clip_frames
from affect.timeline import ConstantRate, Timestamps

durations = st.floats(0.05, 200.0)
rates = st.sampled_from([6.0, 12.5, 15.0, 23.976, 25.0, 29.97, 30.0, 60.0])


@st.composite
def clocks(draw: st.DrawFn) -> Timestamps:
    """Variable frame rates: intervals within a factor of four."""
    intervals = draw(st.lists(st.floats(0.02, 0.08), min_size=1, max_size=400))
    return Timestamps(np.concatenate([[0.0], np.cumsum(intervals)]))


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (0.5, [(0, 0.5)]),
        (4.0, [(0, 4)]),
        (4.5, [(0, 4), (2, 4.5)]),
        (6.0, [(0, 4), (2, 6)]),
        (8.0, [(0, 4), (2, 6), (4, 8)]),
        (8.0 + 1e-12, [(0, 4), (2, 6), (4, 8)]),  # a sum of float intervals is 8 all the same
        (9.0, [(0, 4), (2, 6), (4, 8), (6, 9)]),
    ],
)
def test_segments_of_worked_durations(duration: float, expected: list[tuple[float, float]]):
    assert np.array(timeline.segments(duration)) == pytest.approx(np.array(expected))


@given(durations)
def test_segments_cover_the_video_and_only_the_last_is_short(duration: float):
    ranges = timeline.segments(duration)
    assert ranges[0][0] == 0 and ranges[-1][1] == pytest.approx(duration)
    assert all(b[0] - a[0] == pytest.approx(2) for a, b in itertools.pairwise(ranges))
    assert all(end - start == pytest.approx(4) for start, end in ranges[:-1])
    assert ranges[-1][1] - ranges[-1][0] <= 4 + 1e-6


def test_a_video_without_duration_has_no_segments():
    with pytest.raises(ValueError, match="no segments"):
        timeline.segments(0.0)


@given(clocks())
def test_every_frame_lies_in_a_segment_whatever_the_rate(clock: Timestamps):
    ranges = timeline.frame_ranges(clock, timeline.segments(clock.duration_s))
    covered = np.zeros(clock.num_frames, dtype=bool)
    for first, end in ranges:
        covered[first:end] = True
    assert covered.all()


@given(st.integers(2, 2000), rates, st.floats(0, 60))
def test_timestamps_and_the_constant_rate_differ_by_the_rounding_of_halves_at_most(n: int, fps: float, t: float):
    exact, rounded = Timestamps(np.arange(n) / fps), ConstantRate(n, fps)
    assert exact.fps == pytest.approx(fps)
    difference = abs(exact.frames_before(t) - rounded.frames_before(t))
    assert difference <= (abs(t * fps % 1 - 0.5) < 1e-3)


@given(st.integers(1, 3000), st.integers(1, 500), st.integers(1, 500))
def test_every_frame_lies_in_some_window(n: int, window: int, hop: int):
    hop = min(hop, window)
    starts = timeline.window_starts(n, window, hop)
    covered = np.zeros(n, dtype=bool)
    for start in starts:
        assert start == 0 or start + window <= n
        covered[start : start + window] = True
    assert covered.all() and starts == sorted(set(starts))


def test_windows_of_a_worked_track():
    assert timeline.window_starts(1000, 400, 150) == [0, 150, 300, 450, 600]
    assert timeline.window_starts(700, 400, 150) == [0, 150, 300]
    assert timeline.window_starts(710, 400, 150) == [0, 150, 300, 310]
    assert timeline.window_starts(399, 400, 150) == [0]
    assert timeline.segment_windows(16, 16, 8) == [(0, 16)]
    assert timeline.segment_windows(30, 16, 8) == [(0, 16), (8, 24), (16, 30)]


@given(st.integers(1, 400), st.integers(1, 60), st.floats(-5, 5))
def test_the_overlap_mean_of_a_constant_is_the_constant(n: int, window: int, value: float):
    parts = [(s, np.full((window, 2), value)) for s in timeline.window_starts(n, window, max(1, window // 3))]
    mean, covered = timeline.overlap_mean(n, parts, 2)
    assert covered.all() and mean == pytest.approx(value)


def test_the_overlap_mean_weighs_parts_alike_and_knows_what_nothing_reaches():
    mean, covered = timeline.overlap_mean(5, [(0, np.ones((3, 1))), (2, np.full((2, 1), 4.0))], 1)
    assert mean[:, 0].tolist() == [1, 1, 2.5, 4, 0] and covered.tolist() == [True] * 4 + [False]


@given(st.lists(st.booleans(), min_size=1, max_size=60).filter(any))
def test_nearest_fill_is_the_nearest_and_of_two_the_earlier(valid: list[bool]):
    nearest = timeline.nearest_valid(np.array(valid))
    where = [i for i, v in enumerate(valid) if v]
    expected = [min(where, key=lambda j: (abs(i - j), j)) for i in range(len(valid))]
    assert nearest.tolist() == expected


def test_nothing_to_fill_from_is_an_error():
    with pytest.raises(ValueError, match="no valid frame"):
        timeline.nearest_valid(np.zeros(3, dtype=bool))


@given(st.integers(1, 240), st.integers(1, 6))
def test_blocks_of_a_full_segment_become_frames_as_torch_interpolates(frames: int, num_blocks: int):
    blocks = np.random.default_rng(frames).normal(size=(num_blocks, 3))
    positions = timeline.block_positions(frames, num_blocks, 25.0, full=True)
    expected = functional.interpolate(torch.from_numpy(blocks.T[None]), frames, mode="linear", align_corners=False)
    assert timeline.interpolate_blocks(blocks, positions) == pytest.approx(expected[0].numpy().T, abs=1e-9)


def test_blocks_of_a_tail_stay_one_second_long():
    positions = timeline.block_positions(15, 2, 10.0, full=False)  # 1.5 s at 10 frames a second
    assert positions[0] == 0 and positions[4] == 0 and positions[14] == pytest.approx(0.95)


def test_range_means_ignore_what_is_not_annotated():
    values = np.array([[1.0, 0], [np.nan, np.nan], [3, 2], [5, 4]])
    means = timeline.range_means(values, np.array([[0, 3], [1, 2], [2, 9], [3, 3]]))
    assert means[0].tolist() == [2, 1] and means[2].tolist() == [4, 3]
    assert np.isnan(means[[1, 3]]).all()


@pytest.mark.parametrize(
    ("frames", "seconds", "count"),
    [(120, 4.0, 16), (60, 2.0, 8), (45, 1.5, 6), (20, 0.7, 4), (3, 0.1, 3), (1, 0.04, 1)],
)
def test_the_vision_model_sees_an_even_spread_of_frames(frames: int, seconds: float, count: int):
    chosen = timeline.sampled_frames(frames, seconds)
    assert len(chosen) == count and chosen[0] == 0 and chosen[-1] == frames - 1 and (np.diff(chosen) > 0).all()


@given(st.integers(0, 5), st.lists(st.floats(-1, 1), min_size=1, max_size=50))
def test_the_moving_average_keeps_a_constant_and_stays_in_range(half: int, values: list[float]):
    array = np.array(values)
    smoothed = timeline.moving_average(array, 2 * half + 1)
    assert len(smoothed) == len(array)
    assert smoothed.min() >= array.min() - 1e-12 and smoothed.max() <= array.max() + 1e-12
    assert timeline.moving_average(np.full(7, 0.3), 2 * half + 1) == pytest.approx(0.3)


def test_the_moving_average_of_an_even_width_has_no_centre():
    with pytest.raises(ValueError, match="odd"):
        timeline.moving_average(np.ones(4), 4)


@given(clocks(), st.sampled_from([1.0, 2.0, 60.0]))
def test_clips_share_out_every_frame_once(clock: Timestamps, clip_s: float):
    count = int(clock.time_s[-1] // clip_s) + 1
    owned = [clip_frames(clock.time_s, i * clip_s, (i + 1) * clip_s) for i in range(count)]
    assert owned[0][0] == 0 and owned[-1][1] == clock.num_frames
    assert all(a[1] == b[0] for a, b in itertools.pairwise(owned))


@given(st.lists(st.booleans(), max_size=40))
def test_runs_put_together_are_the_sequence(values: list[bool]):
    parts = timeline.runs(np.array(values, dtype=bool))
    assert [v for start, end, value in parts for v in [value] * (end - start)] == values
    assert all(a[2] != b[2] for a, b in itertools.pairwise(parts))


@given(clock=clocks(), start=st.floats(0.0, 8.0), broken=st.sets(st.integers(0, 15)), data=st.data())
def test_temporal_patches_share_out_a_segments_frames_to_whoever_showed_the_nearest_picture(
    clock: Timestamps, start: float, broken: set[int], data: st.DataObject
):
    slower = data.draw(st.sampled_from([1.0, 4.0, 12.0]))  # down to about one frame a second
    clock = Timestamps(clock.time_s * slower)
    [(first, end)] = timeline.frame_ranges(clock, [(start, start + 4.0)])
    assume(first < end)
    chosen = first + timeline.sampled_frames(int(end - first), 4.0)
    shown = np.array([frame for i, frame in enumerate(chosen) if i not in broken])
    assume(len(shown))
    ranges = timeline.patch_ranges(clock.time_s, clock.time_s[shown], int(first), int(end))
    assert len(ranges) == (len(shown) + 1) // 2
    assert ranges[0, 0] == first and ranges[-1, 1] == end and (ranges[1:, 0] == ranges[:-1, 1]).all()
    for patch, (low, high) in enumerate(ranges):
        assert all(low <= frame < high for frame in shown[2 * patch : 2 * patch + 2])
        for frame in range(low, high):
            distance = np.abs(clock.time_s[shown] - clock.time_s[frame])
            own = distance[2 * patch : 2 * patch + 2].min()
            assert own <= distance.min() + 1e-5


@pytest.mark.parametrize("fps", [1.0, 2.0, 4.0, 5.0, 6.0, 8.0, 25.0, 30.0])
def test_a_patch_stands_for_the_frames_that_it_showed(fps: float):
    clock = Timestamps(np.arange(round(12 * fps)) / fps)
    [(first, end)] = timeline.frame_ranges(clock, [(4.0, 8.0)])
    shown = first + timeline.sampled_frames(int(end - first), 4.0)
    ranges = timeline.patch_ranges(clock.time_s, clock.time_s[shown], int(first), int(end))
    for patch, (low, high) in enumerate(ranges):
        assert set(shown[2 * patch : 2 * patch + 2]) <= set(range(low, high))


def test_a_full_segments_patches_last_about_half_a_second_each():
    time_s = np.arange(120) / 30
    shown_s = time_s[timeline.sampled_frames(120, 4.0)]
    lengths = np.diff(timeline.patch_ranges(time_s, shown_s, 0, 120), axis=1).ravel() / 30
    assert lengths == pytest.approx([0.4, *[0.53] * 6, 0.4], abs=0.05)


def test_a_frame_between_two_pictures_goes_to_the_earlier_one_where_they_are_equally_near():
    shown_s = np.array([0.0, 1.0, 3.0, 4.0, 9.0])
    assert timeline.patch_ranges(np.arange(10.0), shown_s, 0, 10).tolist() == [[0, 3], [3, 7], [7, 10]]


@given(st.integers(0, 99))
def test_the_overlap_spread_is_half_the_range_of_what_overlaps(seed: int):
    rng = np.random.default_rng(seed)
    num = int(rng.integers(1, 40))
    parts = [(int(s), rng.normal(size=(int(rng.integers(1, 12)), 2))) for s in rng.integers(0, num, 6)]
    spread = timeline.overlap_spread(num, parts, 2)
    for frame in range(num):
        said = [values[frame - start] for start, values in parts if start <= frame < start + len(values)]
        expected = np.ptp(said, axis=0) / 2 if len(said) > 1 else [np.nan, np.nan]
        assert spread[frame] == pytest.approx(expected, nan_ok=True)
