"""Ratings over time to labels of frames: reaction times, several raters, tracks that are left out."""

import json
from pathlib import Path

import numpy as np
import pytest

from affect.corpus.affwild2 import LabelError
from affect.corpus.labels import Annotations
from affect.corpus.ratings import Curve, Ratings
from affect.settings.labels import Labels
from affect.storage.store import Store
from affect.tracks.labels import at_frames

TIME_S = np.arange(100) / 25
TRUTH = np.stack([np.sin(TIME_S), np.cos(TIME_S)], axis=1) * 0.5


def rated(lag_s: float = 0.0, bias: float = 0.0, end_s: float = 10.0) -> tuple[Curve, Curve]:
    """Ten ratings a second, late by a lag."""
    at = np.arange(0, end_s, 0.1)
    valence, arousal = (Curve(at, np.interp(at - lag_s, TIME_S, TRUTH[:, c]) + bias) for c in range(2))
    return valence, arousal


def test_each_raters_lag_is_taken_back_and_their_mean_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    raters = {"anna": rated(1.0, 0.2), "ben": rated(2.0, -0.2)}
    given = Annotations(over_time={"train": {"x": Ratings(raters, by_frame=False)}, "development": {}})
    lags = {"": 0.0, "anna": 1.0, "ben": 2.0}
    found = at_frames(given, {"x": TIME_S}, Labels(range="-1..1", raters="mean"), lags, Store(str(tmp_path)))
    np.testing.assert_allclose(found["train"]["x"][:95], TRUTH[:95], atol=2e-3)
    assert found["development"] == {}
    said = capsys.readouterr().out
    assert "2 raters, mean CCC of pairs" in said and "ben: CCC with the others' mean" in said and "2.00 s late" in said
    [note] = (tmp_path / "_labels").glob("*.json")
    assert json.loads(note.read_text())["lag_s"] == lags


def test_tracks_without_a_rating_in_their_video_are_left_out(capsys: pytest.CaptureFixture[str]):
    late = (Curve(np.array([90.0, 91.0]), np.zeros(2)),) * 2
    tracks = {"x": Ratings({"": rated()}, by_frame=False), "late": Ratings({"": late}, by_frame=False)}
    given = Annotations(over_time={"train": {**tracks, "nowhere": tracks["x"]}})
    times = {"x": TIME_S, "late": TIME_S}
    found = at_frames(given, times, Labels(range="-1..1"), {"": 0.0}, None)
    assert list(found["train"]) == ["x"]
    said = capsys.readouterr().out
    assert "left out: track late: none of its ratings falls into its video's 4.0 s" in said
    assert "warning: track late: ratings go on to 91.0 s, its video ends at 4.0 s" in said
    with pytest.raises(LabelError, match="no rating falls into a video"):
        at_frames(Annotations(over_time={"train": {"late": tracks["late"]}}), times, Labels(), {"": 0.0}, None)


def test_reaction_times_of_nobody_are_told(capsys: pytest.CaptureFixture[str]):
    given = Annotations(over_time={"train": {"x": Ratings({"anna": rated()}, by_frame=False)}})
    at_frames(given, {"x": TIME_S}, Labels(), {"": 0.0, "ana": 1.0}, None)
    said = capsys.readouterr().out
    assert "nobody is called ana, whose reaction time is given" in said
    assert "no reaction time is given of anna: they count as on time" in said


def test_ratings_too_far_apart_are_told(capsys: pytest.CaptureFixture[str]):
    at = np.arange(0, 4.1, 2.0)
    slow = (Curve(at, np.zeros(len(at))),) * 2
    given = Annotations(over_time={"train": {"x": Ratings({"": slow}, by_frame=False)}})
    found = at_frames(given, {"x": TIME_S}, Labels(), {"": 0.0}, None)["train"]["x"]
    said = capsys.readouterr().out
    assert (~np.isnan(found[:, 0])).sum() == 2 and "labels: 2 % of the frames of 1 tracks have a rating" in said
    assert (
        "the rater rated every 2 s: frames between ratings more than 1 s apart get none (--labels.max-gap-s 3)" in said
    )


def test_who_rated_half_is_named_and_counts_where_they_did(capsys: pytest.CaptureFixture[str]):
    raters = {"whole": rated(), "half": rated(end_s=2.0), "third": rated(bias=0.01)}
    given = Annotations(over_time={"train": {"x": Ratings(raters, by_frame=False)}})
    found = at_frames(given, {"x": TIME_S}, Labels(raters="mean"), {"": 0.0}, None)["train"]["x"]
    assert not np.isnan(found).any()
    assert "half: " in (said := capsys.readouterr().out) and "rated 48 % of the frames alone" in said


def test_a_lag_longer_than_the_video_leaves_the_track_out(capsys: pytest.CaptureFixture[str]):
    tracks = {"x": Ratings({"": rated(end_s=3.0)}, by_frame=False), "y": Ratings({"": rated()}, by_frame=False)}
    times = {"x": TIME_S, "y": TIME_S}
    found = at_frames(Annotations(over_time={"train": tracks}), times, Labels(), {"": 5.0}, None)
    assert list(found["train"]) == ["y"]
    assert "left out: track x: none of its ratings" in capsys.readouterr().out
