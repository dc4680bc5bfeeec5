"""A search's page: everything is on it, nothing is fetched, and the setting that matters is found."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from affect.report.sweep import MIN_FOR_IMPORTANCE, Trial, importance, page

DEFAULTS = {"raav.hidden": 32, "raav.fit.learning_rate": 1e-3, "raav.positions": False}
RANGES = {"raav.fit.learning_rate"}


def made(number: int, score: float, status: str = "ended", **settings: object) -> Trial:
    curve = tuple(np.linspace(0, score, 9).tolist()) if np.isfinite(score) else ()
    return Trial(
        name=f"{number:03d}",
        settings=DEFAULTS | {f"raav.{name}": value for name, value in settings.items()},
        status=status,  # type: ignore[arg-type]
        score=score,
        valence=score,
        arousal=score,
        lowest=score,
        highest=score,
        epochs=len(curve),
        seconds=1.0,
        curve=curve,
        error="" if status != "failed" else "<script>loss nan</script>",
    )


def many() -> list[Trial]:
    rng = np.random.default_rng(0)
    trials = []
    for number in range(1, 31):
        hidden, positions = int(rng.choice([16, 32, 64])), bool(rng.integers(2))
        rate = float(np.exp(rng.uniform(np.log(1e-4), np.log(1e-2))))
        score = 0.9 - 0.1 * abs(np.log10(rate) + 3) + 0.001 * rng.standard_normal()
        settings = {"hidden": hidden, "positions": positions, "fit.learning_rate": rate}
        trials.append(made(number, float(score), "ended" if number % 3 else "stopped", **settings))
    return sorted([*trials, made(31, 0.89)], key=lambda trial: -trial.score)


class Seen(HTMLParser):
    """What a browser would fetch or run, and the headings."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [v or "" for k, v in attributes if k in ("src", "href", "xlink:href")]


def looked_at(trials: list[Trial], judged: list[str]) -> tuple[str, Seen]:
    html = page("raav of recipe demo", "mean CCC on the development set", trials, DEFAULTS, RANGES, [3, 9], judged)
    seen = Seen()
    seen.feed(html)
    return html, seen


def test_the_page_shows_every_chart_and_trial_with_words_and_fetches_nothing():
    trials = [*many(), made(32, -np.inf, "failed")]
    html, seen = looked_at(trials, ["held-out people: winner <b>0.9</b>"])
    for heading in ("What the winner is worth", "Parallel coordinates", "Score by setting", "Importance", "Rungs"):
        assert f"<h2>{heading}</h2>" in html
    assert html.count("<svg") == 5 and seen.tags.count("figcaption") == 5 and html.count('role="img"') == 5
    assert all(link.startswith("#") for link in seen.fetched) and "script" not in seen.tags
    assert "&lt;b&gt;0.9" in html and "&lt;script&gt;loss nan" in html
    assert all(f"<td>{trial.name}" in html for trial in trials) and "031, defaults" in html


@pytest.mark.parametrize("trials", [[made(1, 0.5)], [made(1, 0.5), made(2, 0.5)], [made(1, 0.5, positions=True)]])
def test_few_and_equal_trials_make_a_page_too(trials: list[Trial]):
    html, _ = looked_at(trials, [])
    assert "Too few trials" in html and html.count("<svg") == 4


def test_the_setting_that_matters_is_found():
    shares = importance(many(), RANGES)
    assert set(shares) == set(DEFAULTS) and max(shares, key=lambda path: shares[path]) == "raav.fit.learning_rate"
    assert sum(shares.values()) == pytest.approx(1.0)
    assert importance(many()[: MIN_FOR_IMPORTANCE - 1], RANGES) == {}


def test_the_same_search_gives_the_same_page():
    first, second = (looked_at(many(), [])[0] for _ in range(2))
    assert re.sub(r"\s+", " ", first) == re.sub(r"\s+", " ", second)


def test_a_trials_status_does_not_depend_on_its_score():
    failed = replace(made(1, 0.5), status="failed")
    html, _ = looked_at([failed], [])
    assert ">failed</td>" in html
