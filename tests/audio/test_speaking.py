"""The mouth filter, worked out by hand and against a loop in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affect.audio.speaking import mouth_open, smooth, verdicts
from affect.config import Speaking

RULE = Speaking()
NAN = float("nan")


def parse(text: str) -> np.ndarray:
    """``#`` is an open frame, ``.`` a closed one."""
    return np.array([c == "#" for c in text])


def show(is_open: np.ndarray) -> str:
    return "".join("#" if value else "." for value in is_open)


def test_the_mean_of_thirty_rows_is_compared_with_the_tracks():
    area = np.array([0.0] * 60 + [3.0] * 30)  # the track's mean is 1: eleven of the last thirty rows exceed it
    assert show(mouth_open(area, RULE)) == "." * 70 + "#" * 20


def test_no_frame_is_open_before_a_full_thirty_rows():
    area = np.array([9.0] * 40 + [0.0] * 40)
    assert show(mouth_open(area, RULE)) == "." * 29 + "#" * 25 + "." * 26  # mean 4.5: open while over 15 rows of 9
    assert not mouth_open(np.array([0.0] * 10 + [9.0] * 19), RULE).any()


def test_a_frame_without_a_mesh_is_closed_and_is_no_row():
    area = np.array([0.0] * 60 + [3.0] * 30)
    with_gaps = np.full(180, NAN)
    with_gaps[::2] = area
    expected = np.zeros(180, dtype=bool)
    expected[::2] = mouth_open(area, RULE)
    assert (mouth_open(with_gaps, RULE) == expected).all() and expected.sum() == 20
    assert not mouth_open(np.full(50, NAN), RULE).any() and len(mouth_open(np.empty(0), RULE)) == 0


@given(st.floats(0, 1), st.integers(30, 400))
def test_a_mouth_that_never_moves_is_never_open(area: float, frames: int):
    assert not mouth_open(np.full(frames, area), RULE).any()


def loop(area: np.ndarray) -> list[bool]:
    """The rule as it is written."""
    rows = [value for value in area if not np.isnan(value)]
    mean, seen, result = np.mean(rows), [], []
    for value in area:
        if not np.isnan(value):
            seen.append(value)
        result.append(not np.isnan(value) and len(seen) >= 30 and np.mean(seen[-30:]) > mean + 1e-9)
    return result


@given(st.integers(0, 2**16), st.integers(30, 300), st.floats(0, 0.9))
def test_any_track_is_judged_as_the_rule_is_written(seed: int, frames: int, missing: float):
    rng = np.random.default_rng(seed)
    area = rng.gamma(2.0, 0.004, size=frames)
    area[rng.uniform(size=frames) < missing] = NAN
    if np.isfinite(area).any():
        assert mouth_open(area, RULE).tolist() == loop(area)


@pytest.mark.parametrize(
    ("fps", "before", "after"),
    [
        # 20 frames a second: gaps of 3 are filled, runs of 4 deleted
        (20, ".#####...#####.", ".#############."),
        (20, ".#####....#####.", ".#####....#####."),
        (20, ".####.....#####.", "..........#####."),
        (20, ".##...##........", ".#######........"),  # too short alone, long enough once filled
        (20, "...#####.......#", "...#####........"),  # what the edges bound is not between open frames
        (20, "#####...", "#####..."),
        (20, "....", "...."),
        # 30: 4.5 rounds to 4, half to even; 6
        (30, ".#######....#######.", ".##################."),
        (30, ".#######.....#######.", ".#######.....#######."),
        (30, "..######..", ".........."),
        # 10: 1.5 rounds to 2; 2
        (10, "###..###", "########"),
        (10, "###...##", "###....."),
        # 12.5: 1.875 rounds to 2, 2.5 to 2
        (12.5, "..###..", "..###.."),
        # 3: .45 and .6 are one frame at least
        (3, "##.##.#..#", "#######..."),
    ],
)
def test_short_gaps_are_filled_before_short_runs_are_deleted(fps: float, before: str, after: str):
    assert show(smooth(parse(before), float(fps), RULE)) == after


def test_a_segment_is_kept_for_a_second_of_open_mouth_and_four_fifths_of_mesh():
    area = np.array([0.01] * 60 + [1.0] * 60)
    opened = int(mouth_open(area, RULE).sum())
    start = 120 - opened
    first, second, third = verdicts(area, 20.0, np.array([[start, start + 20], [start - 1, start + 19], [0, 40]]), RULE)
    assert first.kept and first.open_s == 1.0 and first.coverage == 1 and first.reason == ""
    assert not second.kept and second.open_s == pytest.approx(0.95) and second.reason == "mouth open for 0.95 s"
    assert not third.kept and third.open_s == 0


@pytest.mark.parametrize(("hidden", "kept"), [(20, True), (21, False)])
def test_coverage_is_the_share_of_frames_with_a_mesh(hidden: int, kept: bool):
    area = np.array([0.01] * 100 + [1.0] * 100)
    area[100 : 100 + 2 * hidden : 2] = NAN  # single frames, which smoothing bridges
    [verdict] = verdicts(area, 25.0, np.array([[100, 200]]), RULE)
    assert verdict.coverage == pytest.approx(1 - hidden / 100) and verdict.open_s > 1 and verdict.kept == kept
    assert verdict.reason == ("" if kept else "mouth seen in 79% of the frames")


def test_a_frame_shift_looks_the_mesh_up_later():
    area = np.array([0.01] * 60 + [1.0] * 60)
    ranges = np.array([[90, 115], [60, 80]])
    shifted = verdicts(area, 20.0, ranges, RULE, frame_shift=3)
    assert shifted == verdicts(area, 20.0, ranges + 3, RULE) != verdicts(area, 20.0, ranges, RULE)


def test_a_segment_without_frames_and_one_past_the_mesh_are_not_kept():
    area = np.array([0.01] * 60 + [1.0] * 60)
    empty, past = verdicts(area, 20.0, np.array([[50, 50], [110, 150]]), RULE)
    assert not empty.kept and empty.coverage == 0 and not past.kept and past.coverage == 0.25
