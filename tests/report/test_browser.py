"""The report as a person uses it, in headless Chromium: nothing leaves the page, and it does what it says."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from affect.corpus.film import TICKS, write_film
from affect.modalities import MODALITIES, SYSTEMS
from affect.report.pages import ScoreSection, index_page, index_row, video_page
from affect.report.series import moments
from affect.report.sweep import Trial
from affect.report.sweep import page as page_of_search
from affect.storage import schema
from affect.trained.predictions import predictions_schema

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]
HOSTILE = "<script>alert(1)<script>&\"'#%41.ä"
FPS = 20
BOX = (0.2, 0.1, 0.4, 0.5)
WHY = {"face": "the face is not found", "behavior": "the vision-language model has no state", "audio": "silence"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium; apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


DRAWN = "document.querySelector('#timeline svg').viewBox.baseVal.width"
PLACE = "document.getElementById('timeline').clientWidth"


def at(opened: "Opened", share: float) -> float:
    """Where a share of the shown time is, in pixels from the drawing's left edge."""
    return 84 + share * (opened.number(DRAWN) - 92)


class Opened:
    """A page with everything that it asked for and complained of."""

    def __init__(self, browser: Browser, path: Path) -> None:
        self.page: Page = browser.new_page(viewport={"width": 1250, "height": 1000})
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("a dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(f"file://{quote(str(path))}")

    def number(self, script: str) -> float:
        return float(self.page.evaluate(script))


def predictions(stem: str, seconds: float, people: tuple[str, ...] = ("left", "right")) -> pa.Table:
    """Rows as jobs/predict.py writes them, with a stretch without evidence."""
    num = round(seconds * FPS)
    time_s = np.arange(num) / FPS
    tables = []
    for i, person in enumerate(people):
        valence, arousal = 0.7 * np.sin(time_s / 2 + i), 0.6 * np.cos(time_s / 3 + i)
        valid = ~((time_s >= 2) & (time_s < 3.5)) if i == 0 else np.ones(num, dtype=bool)
        columns = {
            "video": [stem] * num,
            "person": [person] * num,
            "track": [f"{stem}_{person}"] * num,
            "frame": np.arange(num),
            "time_s": time_s,
            "valence": valence,
            "arousal": arousal,
            "valence_spread": np.full(num, 0.1),
            "arousal_spread": pa.nulls(num, pa.float32()),
            "valid": valid,
            "reason": np.where(valid, "", "face: the face is not found").tolist(),
            **{f"face_{side}": np.where(valid, at, np.nan) for side, at in zip(schema.SIDES, BOX, strict=True)},
        }
        for system in SYSTEMS:
            columns |= {f"{system}_valence": valence * 0.8, f"{system}_arousal": arousal * 0.8}
        for modality in MODALITIES:
            why = np.where(valid, "", WHY[modality]).tolist()
            columns |= {f"{modality}_valid": valid, f"{modality}_reason": why, f"{modality}_trust": np.full(num, 1 / 3)}
        tables.append(pa.table(columns).select(predictions_schema().names).cast(predictions_schema()))
    return pa.concat_tables(tables)


def outcome(stem: str, table: pa.Table, status: str = "ok", reason: str = "") -> dict:
    people = len(table["track"].unique())
    length = max(table["time_s"].to_pylist(), default=0.0)
    return {
        "video": stem,
        "status": status,
        "people": people,
        "frames": table.num_rows,
        "duration_s": length,
        "reason": reason,
    }


def make_page(folder: Path, stem: str, seconds: float, *, with_film: bool = True) -> Path:
    table = predictions(stem, seconds)
    film = None
    if with_film:
        film = f"{stem}.mp4"
        frames = np.arange(round(seconds * FPS))
        shade = (np.full((120, 160, 3), number % 256, dtype=np.uint8) for number in frames)
        write_film(folder / film, shade, frames * (TICKS // FPS), None, FPS)
    shown = [(moment, "") for moment in moments(table)]
    gold = {f"{stem}_left": np.zeros((round(seconds * FPS), 2))}
    html = video_page(outcome(stem, table), table, film, shown, gold, {f"{stem}_left": (0.5, 0.25)}, "a caveat")
    path = folder / f"{stem}.html"
    path.write_text(html)
    return path


@pytest.fixture(scope="module")
def opened(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    folder = tmp_path_factory.mktemp("report") / "videos"
    folder.mkdir()
    return Opened(browser, make_page(folder, HOSTILE, 12.0))


FILM, TIME = "document.getElementById('film')", "document.getElementById('film').currentTime"
CURSOR = "document.getElementById('cursor').getAttribute('x1')"
SEEKED = "() => !document.getElementById('film').seeking && document.getElementById('film').readyState >= 2"


def go(opened: Opened, key: str) -> float:
    opened.page.keyboard.press(key)
    opened.page.wait_for_function(SEEKED)
    return opened.number(TIME)


def test_the_page_says_its_name_and_runs_no_script_that_hides_in_it(opened: Opened):
    assert opened.page.locator("h1").inner_text() == HOSTILE
    assert opened.page.locator("script").count() == 2 and "a caveat" in opened.page.locator(".caveat").inner_text()


def test_a_click_on_the_traces_seeks_the_film_and_moves_the_cursor(opened: Opened):
    opened.page.wait_for_function(SEEKED)
    box = opened.page.locator("#timeline").bounding_box()
    assert box is not None
    opened.page.mouse.click(box["x"] + at(opened, 0.5), box["y"] + 60)
    opened.page.wait_for_function(SEEKED)
    assert opened.number(TIME) == pytest.approx(6.0, abs=0.2)
    assert opened.number(CURSOR) == pytest.approx(at(opened, 0.5), abs=10)


def test_the_cursor_follows_the_film(opened: Opened):
    before = opened.number(CURSOR)
    opened.page.evaluate(f"{FILM}.muted = true; {FILM}.playbackRate = 4; {FILM}.play()")
    opened.page.wait_for_function(f"() => {CURSOR} > {before + 60}", timeout=10_000)
    opened.page.evaluate(f"{FILM}.pause()")
    time_s = opened.number(TIME)
    opened.page.wait_for_function(f"() => Math.abs({CURSOR} - {at(opened, time_s / 12)}) < 8")
    assert float(opened.page.locator("#readout").inner_text().split()[0]) == pytest.approx(time_s, abs=0.2)


def test_the_keyboard_does_what_the_page_says(opened: Opened):
    opened.page.locator("#timeline").focus()
    assert go(opened, "Home") == pytest.approx(0, abs=0.01)
    assert go(opened, "ArrowRight") == pytest.approx(1, abs=0.05)
    assert go(opened, "Shift+ArrowRight") == pytest.approx(1.05, abs=0.02)
    assert go(opened, "ArrowLeft") == pytest.approx(0.05, abs=0.05)
    assert go(opened, "PageDown") == pytest.approx(10.05, abs=0.1)
    assert go(opened, "End") == pytest.approx(12, abs=0.2)
    go(opened, "Home")
    opened.page.keyboard.press("Space")
    opened.page.wait_for_function(f"() => !{FILM}.paused && {TIME} > 0.2")
    opened.page.keyboard.press("Space")
    opened.page.wait_for_function(f"() => {FILM}.paused")


def test_a_screen_reader_is_told_the_time_and_the_values(opened: Opened):
    go(opened, "Home")
    slider = opened.page.get_by_role("slider", name="Time in the video")
    slider.focus()
    go(opened, "PageDown")
    assert float(slider.get_attribute("aria-valuenow") or "nan") == pytest.approx(10, abs=0.1)
    said = slider.get_attribute("aria-valuetext") or ""
    assert "left: valence" in said and "right: valence" in said and "annotated" in said


def test_moments_people_and_zoom_answer(opened: Opened):
    first = opened.page.locator(".moments button").first
    wanted = float(first.get_attribute("data-time") or "nan")
    first.click()
    opened.page.wait_for_function(SEEKED)
    assert opened.number(TIME) == pytest.approx(wanted, abs=0.06)
    lines = opened.page.locator("#timeline path[data-person]")
    assert lines.count() == 4
    opened.page.get_by_label("right", exact=True).uncheck()
    assert lines.count() == 2
    opened.page.get_by_label("right", exact=True).check()
    before = opened.number(TIME)
    assert go(opened, "ArrowRight") == pytest.approx(before + 1, abs=0.06)  # after a click elsewhere, too
    opened.page.get_by_role("button", name="10 s").click()
    assert opened.page.get_by_role("button", name="10 s").get_attribute("aria-pressed") == "true"
    assert "no evidence from 2.0 to 3.5 s" in opened.page.locator("#timeline title").all_text_contents()[0]
    opened.page.get_by_role("button", name="all").click()


def test_nothing_left_the_page_and_nothing_was_complained_of(opened: Opened):
    assert opened.complaints == []
    assert all(url.startswith(("file:", "data:")) for url in opened.requests)
    assert len({url for url in opened.requests if url.startswith("file:")}) == 2


def test_a_page_of_forty_minutes_without_a_film_opens_quickly(browser: Browser, tmp_path: Path):
    page = Opened(browser, make_page(tmp_path, "long", 2400.0, with_film=False))
    timing = page.number("performance.getEntriesByType('navigation')[0].loadEventEnd")
    print(f"a page of 40 minutes loads in {timing:.0f} ms")
    page.page.keyboard.press("End")
    assert "40:00" in page.page.locator("#readout").inner_text() and page.complaints == []


def test_a_video_of_one_frame_has_a_page_that_draws(browser: Browser, tmp_path: Path):
    page = Opened(browser, make_page(tmp_path, "short", 1 / FPS, with_film=False))
    assert page.complaints == [] and "NaN" not in page.page.locator("#timeline").inner_html()
    assert page.page.locator("#zoom").is_hidden()


@pytest.mark.parametrize("width", [420, 1024, 1920])
def test_traces_are_as_wide_as_the_window_and_still_seek(browser: Browser, tmp_path: Path, width: int):
    """Nothing has to be scrolled sideways, and a window that is made narrower draws them anew."""
    page = Opened(browser, make_page(tmp_path, "narrow", 12.0, with_film=False))
    page.page.set_viewport_size({"width": width, "height": 900})
    page.page.wait_for_function(f"() => Math.abs({DRAWN} - {PLACE}) < 2")
    page.page.locator("#timeline").scroll_into_view_if_needed()
    drawn = page.page.locator("#timeline svg").bounding_box()
    assert drawn is not None and drawn["x"] >= 0 and drawn["x"] + drawn["width"] <= width
    page.page.mouse.click(drawn["x"] + at(page, 0.25), drawn["y"] + 40)
    slider = page.page.get_by_role("slider")
    assert float(slider.get_attribute("aria-valuenow") or "nan") == pytest.approx(3, abs=0.1)
    assert page.page.evaluate("() => document.documentElement.scrollWidth") <= width
    beyond = f"() => [...document.querySelectorAll('#timeline text')].filter((t) => {{ const b = t.getBBox(); return b.x < 0 || b.x + b.width > {DRAWN}; }}).map((t) => t.textContent)"  # noqa: E501
    assert page.page.evaluate(beyond) == []


def test_a_page_says_why_each_modality_has_nothing(browser: Browser, tmp_path: Path):
    """In the table of people, in the strips, and of the time that is shown."""
    page = Opened(browser, make_page(tmp_path, "why", 12.0, with_film=False))
    cells = page.page.locator("h2:text('People') + div td").all_inner_texts()
    assert any("silence 12 %" in cell for cell in cells) and any("the face is not found 12 %" in cell for cell in cells)
    assert page.page.locator("th:text('audio heard')").count() == 1 and page.page.locator("text=/no gate/").count() == 0
    fills = {why: page.page.locator(f"[data-why='{why}']").first.get_attribute("fill") for why in WHY.values()}
    assert fills["silence"] != fills["the face is not found"] == "url(#hatch)"
    for _ in range(3):
        page.page.keyboard.press("ArrowRight")
    readout = page.page.locator("#readout").inner_text()
    assert "audio: silence" in readout and "face: the face is not found" in readout and "no evidence here" in readout


def test_an_index_of_two_hundred_videos_finds_sorts_and_escapes(browser: Browser, tmp_path: Path):
    stems = [*(f"video{number:03d}" for number in range(199)), HOSTILE]
    rows = []
    for i, stem in enumerate(stems):
        table = predictions(stem, 4.0 + i % 7, ("main",))
        status = "failed" if i % 50 == 0 else "ok"
        row = outcome(stem, table, status, "it has no video stream" if status == "failed" else "")
        rows.append(index_row(row, table, f"videos/{stem}.html"))
    html = index_page("Many videos", rows, [("affect", "1")], "{}", [("it has no video stream", 4)], None, "")
    path = tmp_path / "index.html"
    path.write_text(html)
    index = Opened(browser, path)
    print(
        f"an index of 200 loads in {index.number('performance.getEntriesByType(`navigation`)[0].loadEventEnd'):.0f} ms"
    )
    shown = index.page.locator("#videos tbody tr:not([hidden])")
    assert shown.count() == 200
    index.page.get_by_label("find").fill("no video stream")
    assert shown.count() == 4 and index.page.get_by_role("status").inner_text() == "4 of 200"
    index.page.get_by_label("find").fill("")
    length = index.page.get_by_role("button", name="length")
    length.click()
    seconds = [float(text.split()[0]) for text in index.page.locator("#videos tbody td:nth-child(4)").all_inner_texts()]
    assert seconds == sorted(seconds)
    length.press("Enter")
    assert index.page.locator("th[aria-sort=descending]").inner_text() == "length"
    link = index.page.get_by_role("link", name=HOSTILE)
    assert link.get_attribute("href") == f"videos/{quote(HOSTILE)}.html"
    assert index.complaints == [] and len(index.requests) == 1


TOO_WIDE = """() => [...document.querySelectorAll("table")].filter((table) => {
    const box = table.getBoundingClientRect(), around = table.parentElement.getBoundingClientRect();
    return box.width > around.width + 1 || box.right > document.documentElement.clientWidth;
}).map((table) => table.id || table.innerText.slice(0, 60))"""


@pytest.mark.parametrize("width", [420, 700, 1024, 1400, 1920])
def test_no_table_is_wider_than_its_page(browser: Browser, tmp_path: Path, width: int):
    """The index with annotations, which has the most columns, long names and long reasons; and a search's page."""
    reason = "face: 12 of 300 frames cannot be decoded; behavior: states of 2 of 60 segments are not finite: 3, 17"
    rows = []
    for stem in ("talk", "a_recording_of_two_people_in_the_wild_2024-05-17", "x" * 60):
        table = predictions(stem, 6.0)
        row = index_row(outcome(stem, table, "degraded", reason), table, f"videos/{stem}.html")
        rows.append(row | {"ccc": {"valence": 0.812, "arousal": -0.034}})
    score = {f"{name}{end}": 0.812 for name in ("valence", "arousal", "mean") for end in ("", "_low", "_high")}
    scores = [
        score | {"system": system, "videos": 3, "frames": 1_234_567} for system in ("face", "dcmmoe (face + audio)")
    ]
    facts = [("raav model", "/a/folder/of/trained/models/runs/raav/0123456789abcdef")]
    section = ScoreSection("predictions of x on y", scores, [])
    html = index_page("Three videos", rows, facts, "{}", [(reason, 3)], section, "")
    trials = [
        Trial(
            "001",
            {f"raav.fit.setting_{i}": 0.123456 for i in range(7)},
            "ended",
            0.9,
            0.9,
            0.9,
            0.8,
            0.95,
            30,
            12.0,
            (),
            "",
        )
    ]
    search = page_of_search("raav: 1 trial", "mean CCC", trials, trials[0].settings, set(), [3], ["in the search: .9"])
    for number, content in enumerate((html, search)):
        path = tmp_path / f"{number}.html"
        path.write_text(content)
        opened = Opened(browser, path)
        opened.page.set_viewport_size({"width": width, "height": 900})
        assert opened.page.evaluate(TOO_WIDE) == []
        assert opened.page.evaluate("() => document.documentElement.scrollWidth") <= width
