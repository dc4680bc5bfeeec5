"""What pages are made of: fewer points, stretches, moments; and pages of videos that went wrong."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affect.modalities import SYSTEMS
from affect.progress import format_duration
from affect.report.figures import gold_against_predicted, ranking
from affect.report.pages import index_page, index_row, training_page, video_page
from affect.report.series import moments, stretches, thinned
from affect.trained.predictions import predictions_schema
from tests.report.test_browser import outcome, predictions


@given(st.lists(st.one_of(st.floats(-1, 1), st.just(float("nan"))), min_size=1, max_size=50), st.integers(1, 9))
def test_thinning_gives_the_mean_of_each_stretch_and_none_of_nothing(values: list[float], step: int):
    made = thinned(np.array(values), step)
    for i, value in enumerate(made):
        part = [v for v in values[i * step : (i + 1) * step] if not np.isnan(v)]
        assert value is None if not part else value == pytest.approx(np.mean(part), abs=6e-4)
    assert len(made) == -(-len(values) // step)


def test_stretches_are_half_open_in_time_and_short_ones_are_left_out():
    time_s = np.arange(10) / 10
    mask = np.array([1, 1, 0, 1, 0, 0, 1, 1, 1, 1], dtype=bool)
    assert stretches(mask, time_s, 1.0) == [(0.0, 0.2), (0.3, 0.4), (0.6, 1.0)]
    assert stretches(mask, time_s, 1.0, 0.15) == [(0.0, 0.2), (0.6, 1.0)]


def test_moments_are_extremes_with_evidence_and_one_frame_stands_once():
    table = predictions("a", 10.0, ("main",))
    found = moments(table)
    rows = table.to_pylist()
    seen = [row for row in rows if row["valid"]]
    best = max(seen, key=lambda row: row["valence"])
    [positive] = [moment for moment in found if "most positive" in moment.what]
    assert (positive.frame, positive.valence) == (best["frame"], pytest.approx(best["valence"]))
    assert all(rows[moment.frame]["valid"] for moment in found)
    assert len({moment.frame for moment in found}) == len(found) <= 4
    assert moments(table.filter(pa.array([False] * len(rows)))) == []


def data_of(html: str) -> dict:
    [text] = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL)
    return json.loads(text)


def test_a_long_video_is_thinned_and_a_short_one_is_not():
    for seconds, step in ((10.0, 1), (600.0, 4)):
        table = predictions("a", seconds)
        [left, right] = data_of(video_page(outcome("a", table), table, None, [], {}, {}, ""))["people"]
        assert left["step"] == step and len(left["time"]) == len(left["valence"]) == -(-round(seconds * 20) // step)
        assert left["missing"] == [[2.0, 3.5]] and right["missing"] == [] and left["gold"] is None
        assert left["seen"]["face"]["gaps"] == [[2.0, 3.5, "the face is not found"]]
        assert left["seen"]["audio"]["missing"] == {"silence": pytest.approx(1.5 / seconds, abs=1e-3)}
        assert set(left["trust"]) == {"face", "behavior", "audio"}
        assert set(left["systems"]) == set(SYSTEMS)


def test_a_video_of_nobody_has_a_page_and_one_that_failed_a_row():
    empty = predictions_schema().empty_table()
    html = video_page(outcome("a", empty, "degraded", "no person"), empty, None, [], {}, {}, "")
    assert data_of(html)["people"] == [] and "no person" in html
    rows = [index_row(outcome("b", empty, "failed", "it has <b>no</b> video"), empty, None)]
    page = index_page("t", rows, [], "", [], None, "")
    assert "&lt;b&gt;no&lt;/b&gt; video" in page and "<b>no</b>" not in page and json.loads(json.dumps(rows)) == rows


def test_pages_ask_for_nothing_from_anywhere():
    table = predictions("a", 5.0)
    page = video_page(outcome("a", table), table, "a.mp4", [], {}, {}, "")
    for html in (page, index_page("t", [index_row(outcome("a", table), table, "a")], [], "", [], None, "")):
        assert "default-src 'none'" in html
        assert not re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?(?:https?:)?//', html)


def test_charts_are_the_same_bytes_for_the_same_numbers_and_name_what_they_show():
    gold = np.linspace(-1, 1, 40).repeat(2).reshape(-1, 2)
    gold[3] = np.nan
    name, svg, caption = gold_against_predicted(gold, gold * 0.5)
    assert svg == gold_against_predicted(gold, gold * 0.5)[1] and "annotated valence" in svg and name and caption
    _, svg, caption = ranking({f"v${i}": (i / 50, float("nan")) for i in range(40)})
    assert "15 best and 15 worst of 40" in caption and "v$39" in svg


def test_the_first_and_the_last_of_a_few_videos_are_drawn_whole():
    _, svg, _ = ranking({"a": (0.9, 0.8), "b": (0.5, 0.4), "c": (-0.2, 0.1)})
    clips = dict(re.findall(r'<clipPath id="(\w+)">\s*<rect x="[-\d.]+" y="([-\d.]+)"', svg))
    heights = dict(re.findall(r'<clipPath id="(\w+)">\s*<rect [^>]*height="([-\d.]+)"', svg))
    [clip] = {match for match in re.findall(r'<g clip-path="url\(#(\w+)\)">\s*<use', svg)}
    top, bottom = float(clips[clip]), float(clips[clip]) + float(heights[clip])
    places = [float(y) for y in re.findall(r'<use [^>]*y="([-\d.]+)" style="fill: #[0-9a-f]{6}; stroke', svg)]
    places = [y for y in places if top < y < bottom]  # the legend has one of each, too
    assert len(places) == 6 and top + 5 < min(places) and max(places) < bottom - 5


def test_an_index_says_whose_means_they_are():
    table = predictions("a", 10.0)
    row = index_row(outcome("a", table), table, "videos/a.html")
    html = index_page("One video", [row], [], "{}", [], None, "")
    assert [name for name, _ in row["valence_of_each"]] == ["left", "right"]
    assert re.search(r'left</span> [+-]0\.\d\d, <span class="soft">right</span> [+-]0\.\d\d', html)


def test_the_page_of_a_training_has_its_curves_and_says_what_scores_are():
    history = [{"epoch": e, "loss": 1 / e, "valence": 0.1 * e, "arousal": 0.2, "mean": 0.1 * e} for e in (1, 2, 3)]
    best = history[2]
    model = {"title": "face <x>", "address": "0" * 16, "best": best, "settings": {"hidden": 8}, "history": history}
    solved = model | {"title": "linear", "best": best | {"mean": float("nan")}, "history": []}
    shown = [model | {"scored_on": "development (selected on it)"}, solved | {"scored_on": "nothing"}]
    html = training_page("Training", shown, "a caveat")
    assert html.count("<svg") == 1 and "a caveat" in html and "face &lt;x&gt;" in html and "no claim" in html
    assert "development (selected on it)" in html and "solved" in html and "nan" not in html


@pytest.mark.parametrize(("seconds", "said"), [(9.04, "9.0 s"), (59.97, "1 min 00 s"), (3599.6, "1 h 00 min")])
def test_durations_are_said_as_people_say_them(seconds: float, said: str):
    assert format_duration(seconds) == said
