"""Points on people, given by hand."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affect.corpus.hints import HEADER, parse

NAME = "hints.csv"


def test_points_are_grouped_by_track_in_their_order():
    text = "track,frame,x,y\nb_left,12,0.25,0.5\na,0,0,1\nb_left,3,0.3,0.4\n"
    assert parse(text, NAME) == {"b_left": [(12, 0.25, 0.5), (3, 0.3, 0.4)], "a": [(0, 0.0, 1.0)]}


def test_a_header_alone_holds_no_points():
    assert parse("track,frame,x,y\n", NAME) == {} and parse("track,frame,x,y", NAME) == {}


def test_spaces_windows_line_ends_and_empty_lines_do_no_harm():
    assert parse(" track , frame,x, y\r\n\r\n a , 7 , 0.5, .25 \r\n\r\n", NAME) == {"a": [(7, 0.5, 0.25)]}


names = st.text(min_size=1).filter(lambda name: name == name.strip() and "\r" not in name and "\0" not in name)
shares = st.floats(0, 1)


@settings(deadline=None)
@given(st.lists(st.tuples(names, st.integers(0, 10**6), shares, shares)))
def test_what_a_csv_writer_wrote_is_read_back(points: list):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *points])
    read = parse(text.getvalue(), NAME)
    assert read == {name: [p[1:] for p in points if p[0] == name] for name, *_ in points}


@pytest.mark.parametrize(
    "text", ["", "\n", "a,0,0.5,0.5\n", "frame,track,x,y\n", "track,frame,x\n", "track;frame;x;y\n"]
)
def test_a_file_without_its_header_is_an_error_that_shows_it(text: str):
    with pytest.raises(ValueError, match=r"hints\.csv: its first line has to be track,frame,x,y"):
        parse(text, NAME)


@pytest.mark.parametrize(
    "line", ["a,1,0.5", "a,1,0.5,0.5,0.5", "a,1.5,0.5,0.5", "a,x,0.5,0.5", "a,1,,0.5", "a,1,0.5,half", "a", "a;1;0;0"]
)
def test_a_line_that_is_no_point_is_named_with_its_number(line: str):
    with pytest.raises(ValueError, match=rf"hints\.csv line 4: '{line}' is no track, frame, x and y"):
        parse(f"track,frame,x,y\na,0,0,0\n\n{line}\nb,0,0,0\n", NAME)


@pytest.mark.parametrize("line", ["a,-1,0,0", "a,1,1.01,0", "a,1,0,-0.01", "a,1,nan,0", "a,1,0,inf"])
def test_a_point_outside_of_the_video_is_named_with_its_line(line: str):
    with pytest.raises(ValueError, match=r"hints\.csv line 2: frames count from 0, x and y are shares"):
        parse(f"track,frame,x,y\n{line}\n", NAME)
