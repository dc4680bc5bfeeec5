"""The mouth filter, worked out by hand and against a loop in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affect import timeline
from affect.audio.speaking import (
    Verdict,
    frame_reasons,
    judge_table,
    level_dbfs,
    mouth_open,
    silence_reason,
    smooth,
    verdicts,
    with_silence_reason,
)
from affect.settings.extraction import Grid
from affect.settings.models import Speaking

RULE = Speaking()
BY_VIDEO = Speaking(relative_to="video")
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


@pytest.mark.parametrize("shift", [3, -3])
def test_a_frame_shift_reads_the_mesh_so_much_earlier(shift: int):
    area = np.array([0.01] * 60 + [1.0] * 60)
    ranges = np.array([[90, 115], [60, 80]])
    shifted = verdicts(area, 20.0, ranges, RULE, frame_shift=shift)
    assert shifted == verdicts(area, 20.0, ranges - shift, RULE) != verdicts(area, 20.0, ranges, RULE)


def test_published_tables_lack_the_first_frame():
    frame, area = np.arange(480), np.linspace(0.1, 0.2, 480)
    coverage = [row.verdict.coverage for row in judge_table(frame, area, 30.0, frame_shift=1)]
    assert coverage[0] == pytest.approx(119 / 120) and coverage[1:] == [1.0] * 6
    back = [row.verdict.coverage for row in judge_table(frame, area, 30.0, frame_shift=-1)]
    assert back == coverage[::-1]


def test_a_segment_without_frames_and_one_past_the_mesh_are_not_kept():
    area = np.array([0.01] * 60 + [1.0] * 60)
    empty, past = verdicts(area, 20.0, np.array([[50, 50], [110, 150]]), RULE)
    assert not empty.kept and empty.coverage == 0 and not past.kept and past.coverage == 0.25


def smoothed_by_hand(is_open: list[bool], fps: float) -> list[bool]:
    """Gaps between open frames are filled first, then short runs deleted, frame by frame."""
    gap, shortest = (max(1, round(seconds * fps)) for seconds in (0.15, 0.2))
    frames = range(len(is_open))

    def bounds(values: list[bool], at: int) -> tuple[int, int]:
        first = last = at
        while first > 0 and values[first - 1] == values[at]:
            first -= 1
        while last + 1 < len(values) and values[last + 1] == values[at]:
            last += 1
        return first, last

    filled = list(is_open)
    for at in frames:
        first, last = bounds(is_open, at)
        if not is_open[at] and first > 0 and last + 1 < len(is_open) and last - first + 1 <= gap:
            filled[at] = True
    result = list(filled)
    for at in frames:
        first, last = bounds(filled, at)
        if filled[at] and last - first + 1 <= shortest:
            result[at] = False
    return result


RATES = st.sampled_from([23.976, 25.0, 29.97, 30.0, 12.5, 7.0, 59.94])


@given(st.lists(st.booleans(), max_size=120), RATES)
def test_any_mouth_is_smoothed_as_the_rule_is_written(frames: list[bool], fps: float):
    assert smooth(np.array(frames, dtype=bool), fps, RULE).tolist() == smoothed_by_hand(frames, fps)


@given(st.lists(st.booleans(), max_size=120), RATES)
def test_smoothing_again_changes_nothing_and_what_is_open_is_long_enough(frames: list[bool], fps: float):
    once = smooth(np.array(frames, dtype=bool), fps, RULE)
    assert (smooth(once, fps, RULE) == once).all()
    shortest = max(1, round(0.2 * fps))
    assert all(end - start > shortest for start, end, value in timeline.runs(once) if value)


def test_the_other_order_would_say_something_else():
    mouth = parse("..##...##...##..")  # at 20 frames a second each run is too short alone, the gaps are too
    assert show(smooth(mouth, 20.0, RULE)) == "..############.."
    deleted = smooth(mouth, 20.0, Speaking(bridge_s=0.0))  # what is left for the gaps if runs are deleted first
    assert not deleted.any()


@given(st.integers(0, 2**16), st.floats(0.01, 100))
def test_the_size_of_a_face_does_not_matter(seed: int, factor: float):
    area = np.random.default_rng(seed).gamma(2.0, 0.01, size=200)
    assert (mouth_open(factor * area, RULE) == mouth_open(area, RULE)).mean() > 0.98  # ties may fall either way


def two_people(seconds: float = 20.0, fps: float = 25.0) -> tuple[np.ndarray, np.ndarray]:
    """One speaks all the time, the other's mouth barely moves."""
    time = np.arange(round(seconds * fps)) / fps
    speaker = 0.008 + 0.003 * np.sin(2 * np.pi * 0.2 * time)
    return speaker, 0.001 + 0.0004 * np.sin(2 * np.pi * 0.2 * time + 1)


def test_relative_to_the_video_a_listener_is_told_from_the_speaker():
    speaker, listener = two_people()
    everyone = np.concatenate([speaker, listener])
    ranges = timeline.frame_ranges(timeline.ConstantRate(500, 25.0), timeline.segments(20.0))
    kept = {}
    for rule in (RULE, BY_VIDEO):
        for name, area in (("speaker", speaker), ("listener", listener)):
            judged = verdicts(area, 25.0, ranges, rule, everyone=everyone)
            kept[rule.relative_to, name] = [verdict.kept for verdict in judged]
    assert any(kept["track", "listener"])  # its mouth is open half of the time, measured against itself
    assert all(kept["video", "speaker"]) and not any(kept["video", "listener"])


def test_relative_to_the_video_is_relative_to_the_track_where_it_is_alone():
    speaker, _ = two_people()
    speaker[100:140] = NAN
    for everyone in (None, speaker):
        assert (mouth_open(speaker, BY_VIDEO, everyone) == mouth_open(speaker, RULE)).all()
    assert (mouth_open(speaker, RULE, np.array([1.0])) == mouth_open(speaker, RULE)).all()  # who is not asked for


@pytest.mark.parametrize("fps", [23.976, 25.0, 29.97, 30.0, 11.3])
def test_a_mouth_table_is_judged_segment_by_segment(fps: float):
    rng = np.random.default_rng(round(fps))
    num = round(11.0 * fps)  # four whole segments and a tail of three seconds
    frame = np.flatnonzero(rng.uniform(size=num) < 0.9)
    area = rng.gamma(2.0, 0.01, size=num)
    area[: num // 2] *= 0.2
    order = rng.permutation(len(frame))
    rows = judge_table(frame[order], area[frame][order], fps, num_frames=num)
    assert [row.start_s for row in rows] == [0.0, 2.0, 4.0, 6.0, 8.0] and rows[-1].end_s == pytest.approx(num / fps)
    whole = np.full(num, NAN)
    whole[frame] = area[frame]
    is_open = smoothed_by_hand(loop(whole), fps)
    for row in rows:
        assert row.first_frame == round(row.start_s * fps) and row.end_frame == min(num, round(row.end_s * fps))
        inside = slice(row.first_frame, row.end_frame)
        open_s, coverage = sum(is_open[inside]) / fps, np.mean(~np.isnan(whole[inside]))
        assert row.verdict.open_s == pytest.approx(open_s) and row.verdict.coverage == pytest.approx(coverage)
        assert row.verdict.kept == (open_s >= 1.0 and coverage >= 0.8)
        assert bool(row.verdict.reason) != row.verdict.kept
    assert any(row.verdict.kept for row in rows) and not all(row.verdict.kept for row in rows)


def test_a_mouth_table_with_gaps_a_shift_and_another_grid():
    frame, area = np.arange(200), np.concatenate([np.full(100, 0.01), np.full(100, 1.0)])
    [first, second] = judge_table(frame, area, 25.0, grid=Grid(segment_s=4.0, hop_s=4.0))
    assert not first.verdict.kept and second.verdict.kept and (second.first_frame, second.end_frame) == (100, 200)
    hidden = np.where((frame >= 120) & (frame < 141), NAN, area)  # 21 of 100 frames
    assert judge_table(frame, hidden, 25.0)[2].verdict.reason == "mouth seen in 79% of the frames"
    without = np.flatnonzero(~np.isnan(hidden))
    assert judge_table(without, area[without], 25.0) == judge_table(frame, hidden, 25.0)
    shifted = judge_table(frame, area, 25.0, frame_shift=-1)
    assert [row.start_s for row in shifted] == [0.0, 2.0, 4.0]
    assert shifted[1].verdict.open_s == judge_table(frame, area, 25.0)[1].verdict.open_s + 1 / 25
    empty = judge_table(np.empty(0, dtype=np.int64), np.empty(0), 25.0, num_frames=50)
    assert [row.verdict.coverage for row in empty] == [0.0]


def test_a_mouth_table_with_everyone_is_judged_relative_to_the_video_and_by_the_rule_that_is_given():
    speaker, listener = two_people()
    frame, everyone = np.arange(500), np.concatenate([speaker, listener])
    own = judge_table(frame, listener, 25.0)
    assert any(row.verdict.kept for row in own)
    assert not any(row.verdict.kept for row in judge_table(frame, listener, 25.0, everyone=everyone))
    assert judge_table(frame, listener, 25.0, everyone=everyone, settings=RULE) == own
    assert not any(row.verdict.kept for row in judge_table(frame, listener, 25.0, settings=Speaking(min_open_s=5.0)))


def test_a_mouth_table_may_be_what_csv_readers_give():
    speaker, _ = two_people()
    plain = judge_table(np.arange(500), speaker, 25.0)
    assert judge_table(list(range(500)), speaker.tolist(), 25.0) == plain
    assert judge_table(np.arange(500).astype(np.float64), speaker.astype(np.float32), 25.0)[0].start_s == 0


@pytest.mark.parametrize(("shift", "coverage"), [(1, 0.99), (-1, 0.99), (150, 0.0), (-150, 0.0)])
def test_a_shift_past_either_end_finds_nothing_there(shift: int, coverage: float):
    [verdict] = verdicts(np.full(100, 0.01), 25.0, np.array([[0, 100]]), RULE, frame_shift=shift)
    assert verdict.coverage == coverage


def test_relative_to_a_video_without_any_mesh_nobody_speaks():
    speaker, _ = two_people()
    assert not mouth_open(speaker, BY_VIDEO, np.full(5, NAN)).any()


@pytest.mark.parametrize(
    ("frame", "area", "fps", "num", "message"),
    [
        ([0, 1], [0.1], 25.0, None, "has 2 frames and 1 areas"),
        ([0, 1], [0.1, 0.1], 0.0, None, "fps is 0.0, it has to be positive"),
        ([0, 1], [0.1, 0.1], NAN, None, "fps is nan"),
        ([0, 1], [0.1, -0.1], 25.0, None, "negative or infinite"),
        ([0, 1], [0.1, np.inf], 25.0, None, "negative or infinite"),
        ([1, 1], [0.1, 0.1], 25.0, None, "has frame 1 more than once"),
        ([-1, 1], [0.1, 0.1], 25.0, None, "has frames -1 to 1, the video 2 frames"),
        ([0, 50], [0.1, 0.1], 25.0, 50, "has frames 0 to 50, the video 50 frames"),
        ([], [], 25.0, None, "the video has no frame"),
        ([0, 1.5], [0.1, 0.1], 25.0, None, "a frame that is no whole number"),
        ([0, NAN], [0.1, 0.1], 25.0, None, "a frame that is no whole number"),
        ([0, 1], [[0.1], [0.1]], 25.0, None, "area is no column: it has 2 axes"),
    ],
)
def test_a_mouth_table_that_cannot_be_says_why(
    frame: list[float], area: list[float], fps: float, num: int | None, message: str
):
    with pytest.raises(ValueError, match=message):
        judge_table(np.array(frame), np.array(area), fps, num_frames=num)


def test_a_level_is_the_root_mean_square_in_decibels_of_full_scale():
    second = np.arange(16_000) / 16_000
    sine = np.round(32_767 * np.sin(2 * np.pi * 440 * second)).astype(np.int16)
    assert level_dbfs(sine) == pytest.approx(-3.01, abs=0.01)
    assert level_dbfs((sine // 1000 + 900).astype(np.int16)) == pytest.approx(-63.0, abs=0.2)  # the mean says nothing
    for constant in (0, -1, 32_767):
        assert level_dbfs(np.full(100, constant, dtype=np.int16)) == -np.inf
    square = np.tile(np.array([-32_768, 32_767], dtype=np.int16), 50)
    assert level_dbfs(square) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize(
    ("wave", "why"),
    [
        (np.empty(0), "no sound"),
        (np.zeros(64_000), "silence, -inf dBFS"),
        (np.full(64_000, 1200.0), "silence, -inf dBFS"),
        (np.tile([0.0, 1.0], 32_000), "silence, -96 dBFS"),
        (np.tile([0.0, 21.0], 32_000), ""),  # -69.9 dBFS
        (np.tile([0.0, 20.0], 32_000), "silence, -70 dBFS"),
    ],
)
def test_silence_is_sound_below_a_floor(wave: np.ndarray, why: str):
    assert silence_reason(wave.astype(np.int16), Speaking()) == why
    assert silence_reason(np.tile(np.array([0, 20], dtype=np.int16), 100), Speaking(min_level_dbfs=-80.0)) == ""


def test_a_frame_has_the_reason_of_the_segment_that_comes_nearest_to_being_heard():
    ranges = np.array([[0, 4], [2, 6], [4, 8], [6, 10]])
    verdicts = ["no sound", "silence, -90 dBFS", "mouth open for 0.20 s", ""]
    mouth = "the mouth is not seen to speak"
    assert frame_reasons(ranges, verdicts, 11) == [
        *["no sound"] * 2, *["silence"] * 2, *[mouth] * 4, *["no sound"] * 3
    ]  # fmt: skip
    verdict = Verdict(True, "", 2.0, 1.0)
    assert (
        with_silence_reason(verdict, "") == verdict and with_silence_reason(verdict, "silence, -90 dBFS").kept is False
    )
