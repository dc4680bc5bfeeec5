"""Ratings over time: files, faults, and ratings of frames."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affect.corpus.affwild2 import LabelError
from affect.corpus.ratings import Curve, Piece, at_frames, read_table

BOUNDS = (1.0, 9.0)
HEADER = "time_s,valence,arousal"


def read(text: str, path: str = "a.csv") -> list[Piece | str]:
    return read_table(text.encode(), path, "video", "", BOUNDS)


def piece(text: str, path: str = "a.csv") -> Piece:
    [found] = read(text, path)
    assert isinstance(found, Piece), found
    return found


def test_ratings_become_minus_one_to_one_and_empty_cells_are_not_rated():
    found = piece(f"{HEADER}\n0,1,9\n0.5,5,\n1,,2\n")
    valence, arousal = found.curves
    assert valence.at.tolist() == [0, 0.5] and valence.value.tolist() == [-1, 0]
    assert arousal.at.tolist() == [0, 1] and arousal.value.tolist() == [1, -0.75]
    assert (found.track, found.rater, found.split, found.person, found.by_frame) == ("video", "", "train", "", False)


def test_one_file_holds_tracks_and_raters_in_any_order():
    head = "rater,track,frame,arousal,valence,split,person"
    text = f"{head}\nb,x,0,5,5,dev,p\na,x,0,5,5,dev,p\nb,x,9,5,5,dev,p\na,y,0,1,1,test,\n"
    found = [each for each in read(text) if isinstance(each, Piece)]
    assert {(p.track, p.rater, p.split, p.person) for p in found} == {
        ("x", "a", "development", "p"),
        ("x", "b", "development", "p"),
        ("y", "a", "held_out", ""),
    }
    assert all(p.by_frame for p in found)


def test_tabs_byte_order_marks_and_parquet_are_read_alike():
    table = pa.table({"time_s": [0.0, 1.0], "valence": [1.0, 2.0], "arousal": [3.0, None]})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    [found] = read_table(sink.getvalue(), "a.parquet", "video", "", BOUNDS)
    assert isinstance(found, Piece)
    commas, tabs = f"\ufeff{HEADER}\n0,1,3\n1,2,\n", "time_s\tvalence\tarousal\n0\t1\t3\n1\t2\t\n"
    for text, path in ((commas, "a.csv"), (tabs, "a.tsv")):
        for ours, theirs in zip(piece(text, path).curves, found.curves, strict=True):
            np.testing.assert_array_equal(ours.at, theirs.at)
            np.testing.assert_array_equal(ours.value, theirs.value)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("0,1,1\n2,1,1\n1,1,1", r"row 4 has time_s 1 after 2: times grow"),
        ("0,1,1\n0,1,1", r"row 3 has time_s 0 after 0: times grow; several raters need a column rater"),
        ("0,1,1\n1,9.5,1", r"row 3 has \[9.5, 1.0\], outside of the stated range 1..9"),
        ("0,1,inf", r"row 2 has \[1.0, inf\], outside of the stated range"),
        ("0,1,1\nnan,1,1", r"row 3 has time_s nan"),
        ("0,high,1", r"row 2 is '0,high,1': time_s, valence and arousal are numbers"),
        ("0,1", r"row 2 is '0,1'"),
        ("1e400,1,1", "row 2 has time_s inf"),
    ],
)
def test_faults_name_file_and_row_and_leave_other_tracks(rows: str, reason: str):
    text = f"track,{HEADER}\n" + "".join(f"bad,{row}\n" for row in rows.split("\n")) + "good,0,1,1\n"
    bad, good = sorted(read(text), key=lambda part: isinstance(part, Piece))
    assert isinstance(good, Piece) and good.track == "good"
    assert isinstance(bad, str) and bad.startswith("track bad: a.csv: ")
    with pytest.raises(AssertionError, match=reason.replace("'0,", "'bad,0,")):
        raise AssertionError(bad)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("time_s,frame,valence,arousal\n0,0,1,1\n", "it has time_s and frame"),
        ("time_s,valence\n0,1\n", "it has no column arousal, but time_s, valence"),
        ("valence,arousal\n1,1\n", "it has no column time_s or frame"),
        (f"{HEADER}\n", "it has no row"),
        (f"{HEADER},valence\n0,1,1,9\n", "it has more than one column valence"),
        ("", "it has no column time_s or frame and valence and arousal, but none"),
        (f'{HEADER}\n0,"1,1\n', "it is no CSV"),
    ],
)
def test_files_that_are_no_table_of_ratings_are_refused(text: str, reason: str):
    with pytest.raises(LabelError, match=rf"^a\.csv: {reason}"):
        read(text)
    for content in (b"\xff\xfe\x00", b"PAR1"):
        with pytest.raises(LabelError, match=r"^a\.parquet: it is no Parquet file"):
            read_table(content, "a.parquet", "video", "", BOUNDS)


def test_frames_count_from_0_and_names_are_stripped():
    assert "row 2 has frame -1: they count from 0" in str(read("frame,valence,arousal\n-1,1,1\n")[0])
    assert piece(f"rater,{HEADER}\n anna,0,1,1\nanna ,1,1,1\n").rater == "anna"


def test_odd_columns_of_parquet_are_read_or_refused_in_one_line():
    def parquet(**columns: object) -> bytes:
        sink = io.BytesIO()
        pq.write_table(pa.table({"valence": [1.0], "arousal": [1.0], **columns}), sink)
        return sink.getvalue()

    [found] = read_table(parquet(frame=[3], track=pa.array([b"x"])), "a.PARQUET", "video", "", BOUNDS)
    assert isinstance(found, Piece) and found.track == "x"
    for wrong in ({"time_s": [0.0], "track": pa.array([b"\xff"])}, {"time_s": [0.0], "rater": pa.array([b"\xff"])}):
        with pytest.raises(LabelError, match=r"^a\.parquet: it is no Parquet file of ratings"):
            read_table(parquet(**wrong), "a.parquet", "video", "", BOUNDS)


def test_contradicting_splits_and_unknown_words_are_told():
    head = f"{HEADER},split\n"
    assert "different splits or persons" in str(read(head + "0,1,1,dev\n1,1,1,train\n")[0])
    assert "split 'maybe' is none of train" in str(read(head + "0,1,1,maybe\n")[0])


def test_two_rates_in_one_track_are_warned_of(capsys: pytest.CaptureFixture[str]):
    steps = [0.04] * 50 + [0.5] * 50
    piece(f"{HEADER}\n" + "".join(f"{t:.2f},5,5\n" for t in np.cumsum(steps)))
    assert "a.csv: track video: a rating every 0.04, later every 0.5 (time_s)" in capsys.readouterr().out


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), lag_s=st.sampled_from([0.0, 0.3, 2.0]), gap_s=st.sampled_from([0.1, 0.5, 3.0]))
def test_frames_get_their_ratings_as_defined(seed: int, lag_s: float, gap_s: float):
    """Every frame by hand: between its two neighbours in time, unless they are further apart than the gap."""
    rng = np.random.default_rng(seed)
    time_s = np.cumsum(rng.uniform(0.01, 0.1, 80))
    time_s -= time_s[0]
    at = np.sort(rng.uniform(-1, 7, rng.integers(1, 30)))
    at[rng.random(len(at)) < 0.2] = rng.choice(time_s) + lag_s  # some fall on a frame
    at = np.unique(at)
    curve = Curve(at, rng.uniform(-1, 1, len(at)))
    found = at_frames(curve, time_s, lag_s, gap_s, by_frame=False)
    for t, value in zip(time_s, found, strict=True):
        moved = at - lag_s
        before, after = moved[moved <= t + 1e-6], moved[moved >= t - 1e-6]
        if not len(before) or not len(after) or after[0] - before[-1] > gap_s + 1e-6:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(np.interp(t, moved, curve.value), abs=1e-9)


def test_frame_numbers_are_times_of_their_frames():
    time_s = np.array([0.0, 0.1, 0.15, 0.4, 0.5])
    curve = Curve(np.array([1.0, 3.0, 4.0]), np.array([0.1, 0.3, 0.4]))
    by_time = Curve(time_s[[1, 3, 4]], curve.value)
    ours, theirs = (at_frames(c, time_s, 0.0, 1.0, by_frame=by) for c, by in ((curve, True), (by_time, False)))
    np.testing.assert_allclose(ours, theirs)
    assert np.isnan(ours).tolist() == [True, False, False, False, False]


def test_no_rating_is_no_rating():
    assert np.isnan(at_frames(Curve(np.array([]), np.array([])), np.arange(5) / 5, 0.0, 1.0, by_frame=False)).all()
