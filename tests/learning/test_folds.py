"""Folds keep the videos of a person together."""

import pytest

from affect.learning.folds import fold_groups, of_same_people


def test_videos_are_joined_by_people_directly_and_through_others():
    tracks = [("a", "p"), ("b", "q"), ("c", ""), ("d", "q"), ("d", "p"), ("e", "r"), ("c", "")]
    assert sorted(map(sorted, of_same_people(tracks))) == [["a", "b", "d"], ["c"], ["e"]]


def test_folds_divide_groups_whole_and_about_equally():
    sizes = {"a": 5, "b": 1, "c": 4, "d": 2}
    parts = fold_groups(sizes, [{"a"}, {"b", "d"}, {"c"}], 3)
    assert sorted(map(sorted, parts)) == [["a"], ["b", "d"], ["c"]]
    with pytest.raises(ValueError, match="there are 3 training videos"):
        fold_groups(sizes, [{"a"}, {"b", "d"}, {"c"}], 4)
