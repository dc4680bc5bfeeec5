"""Layouts of annotations: which files are read, as what, and who is left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from affect.corpus import labels
from affect.corpus.affwild2 import LabelError
from affect.settings import recipes
from affect.settings.labels import Labels
from jobs.tune import Tune

HOW = Labels(range="1..9")
ROWS = "0,1,9\n0.5,9,1\n"
TABLE = f"time_s,valence,arousal\n{ROWS}"


def write(root: Path, texts: dict[str, str]) -> str:
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return str(root)


def test_a_folder_per_rater_a_file_per_track(tmp_path: Path):
    place = write(tmp_path, {f"{rater}/{track}.csv": TABLE for rater in ("anna", "ben") for track in ("x", "y")})
    found = labels.read(place, HOW, "unused")
    assert found.names == ["x", "y"] and list(found.over_time["train"]["x"].curves) == ["anna", "ben"]


def test_one_file_for_all_with_splits_and_persons(tmp_path: Path):
    rows = "".join(
        f"{track},{row},{split},{person}\n"
        for track, split, person in (("x", "", "p"), ("y", "", "p"), ("d", "dev", "q"), ("h", "test", "r"))
        for row in ROWS.split()
    )
    place = write(tmp_path, {"all.csv": f"track,time_s,valence,arousal,split,person\n{rows}"}) + "/all.csv"
    found = labels.read(place, HOW)
    names = {split: list(tracks) for split, tracks in found.over_time.items()}
    assert names == {"train": ["x", "y"], "development": ["d"]}
    assert found.persons["x"] == found.persons["y"] == "p"
    assert labels.read(place, HOW, "unused").names == ["x", "y"]
    assert labels.read_truth(place, HOW).names == ["h"]
    assert sorted(labels.annotated_tracks(place, HOW)) == ["d", "h", "x", "y"]


def test_aff_wild2s_layout_is_read_as_ever_whatever_lies_beside_it(tmp_path: Path):
    rows = "valence,arousal\n0.5,-5\n0.1,0.2\n"
    texts = {f"{folder}/{folder[0]}.txt": rows for folder in ("Train_Set", "Validation_Set")}
    place = write(tmp_path, {**texts, "hints.csv": "track,frame,x,y\n", "notes.txt": "by hand\n"})
    found = labels.read(place, Labels())
    assert not found.over_time and found.names == ["T", "V"]
    np.testing.assert_array_equal(found.per_frame["train"]["T"], [[np.nan, np.nan], [0.1, 0.2]])
    assert labels.read_truth(place, Labels()).names == ["V"]
    flat = write(tmp_path / "flat", {"a.txt": "valence,arousal\n0,0\n"})
    assert labels.read(flat, Labels(), "optional").names == labels.read_truth(flat, Labels()).names == ["a"]


def test_the_range_is_stated_or_refused(tmp_path: Path):
    place = write(tmp_path, {"x.csv": TABLE})
    with pytest.raises(LabelError, match=r"state the range of the ratings: --labels\.range 1\.\.9"):
        labels.read(place, Labels(), "unused")
    for wrong in ("9..1", "1-9", "a..b", "3..3"):
        with pytest.raises(ValueError, match="range is"):
            Labels(range=wrong)


def test_lags_are_numbers_of_raters_or_auto():
    assert Labels(lag_s="2").lags == {"": 2.0}
    assert Labels(lag_s="anna=1.5, ben=2,0.5").lags == {"": 0.5, "anna": 1.5, "ben": 2.0}
    assert Labels(lag_s="auto").lag_s == "auto"
    for wrong in ("soon", "7", "-1", "anna=9", "anna="):
        with pytest.raises(ValueError, match="lag_s is"):
            Labels(lag_s=wrong)


def test_bad_files_are_left_out_with_a_line_each_and_others_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    bomb = '<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'
    texts = {"x.csv": TABLE, "y.eaf": bomb, "z.csv": "time_s,valence\n0,1\n", "w.txt": "a\tb\n", "v.parquet": "no"}
    found = labels.read(write(tmp_path, texts), HOW, "unused")
    lines = capsys.readouterr().out.splitlines()
    assert found.names == ["x"]
    assert len(lines) == 4 and all(line.startswith("left out: ") for line in lines)
    assert all(any(name in line for line in lines) for name in ("y.eaf", "z.csv", "w.txt", "v.parquet"))


def test_a_track_that_is_rated_twice_or_in_two_ways_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    place = write(tmp_path, {"x.csv": TABLE, "x.tsv": TABLE.replace(",", "\t"), "y.csv": TABLE})
    assert labels.read(place, HOW, "unused").names == ["y"]
    assert "left out: track x: " in (said := capsys.readouterr().out) and "give a column rater or a folder each" in said
    frames = TABLE.replace("time_s", "frame")
    place = write(tmp_path / "two", {"anna/x.csv": TABLE, "ben/x.csv": frames, "ben/y.csv": TABLE})
    assert labels.read(place, HOW, "unused").names == ["y"]
    assert "differ in split, person or kind of time" in capsys.readouterr().out


def test_an_estimated_lag_is_one_of_training(tmp_path: Path):
    place = write(tmp_path, {"x.csv": TABLE})
    auto = Labels(range="1..9", lag_s="auto")
    assert labels.read(place, auto, "unused").names == ["x"]
    with pytest.raises(LabelError, match="auto is estimated in training: give the numbers"):
        labels.read_truth(place, auto)
    with pytest.raises(ValueError, match="train once, and give the numbers"):
        places = {"labels": place, "store": "s", "runs": "r", "truth": place, "videos": ("v",), "new_videos": ("v",)}
        Tune(run=replace(recipes.face(), labels=auto), **places)


def test_without_a_development_set_cross_validation_is_proposed(tmp_path: Path):
    place = write(tmp_path, {"x.csv": TABLE})
    with pytest.raises(LabelError, match=r"give some people that word in a column split, or cross-validate"):
        labels.read(place, HOW)
    with pytest.raises(LabelError, match="no file of ratings can be used"):
        labels.read(write(tmp_path / "bad", {"x.csv": "a,b\n"}), HOW)
    with pytest.raises(LabelError, match=r"missing\.csv: no such file"):
        labels.read(str(tmp_path / "missing.csv"), HOW)


def test_notes_beside_ratings_and_files_too_deep_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    texts = {"x.CSV": TABLE, "README.txt": "my notes\n", "one/two/y.csv": TABLE}
    assert labels.read(write(tmp_path, texts), HOW, "unused").names == ["x"]
    said = capsys.readouterr().out
    assert "README.txt: line 1 is 'my notes'" in said and "y.csv: it lies deeper than a folder per rater" in said


def test_a_person_who_is_in_two_splits_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = "".join(f"{track},{row},{split},p\n" for track, split in (("x", ""), ("y", "dev")) for row in ROWS.split())
    place = write(tmp_path, {"all.csv": f"track,time_s,valence,arousal,split,person\n{rows}"})
    labels.read(place, HOW)
    assert "warning: person p is in development and train" in capsys.readouterr().out
