"""Settings of annotations of one's own."""

import math
from dataclasses import dataclass
from typing import Literal

from affect.settings.base import Positive, Settings

AUTO = "auto"
"""Value of :attr:`Labels.lag_s` for an estimate."""
MAX_LAG_S = 6.0
"""Longest reaction time of a rater, in seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels(Settings):
    """Reading of ratings in CSV, Parquet and ELAN files; files in Aff-Wild2's layout need none of it."""

    range: str = ""
    """Lowest and highest possible rating, as 1..9 or -100..100: they become -1 and 1. Never guessed."""
    raters: Literal["weighted", "mean"] = "weighted"
    """Mean of several raters: each weighted by the mean correlation with the others (evaluator-weighted), or plain."""
    max_gap_s: Positive = 1.0
    """Longest time between two ratings, in seconds, within which frames get an interpolated rating."""
    lag_s: str = "0"
    """Reaction time of the raters, 0 to 6 s, by which ratings come late: a number, one per rater (anna=1.2,ben=2), or
    auto, which estimates each on the training videos."""

    def check(self) -> None:
        """Checks constraints between fields."""
        if self.range:
            try:
                low, high = self.bounds
            except ValueError:
                self.require(False, f"range is {self.range!r}, it has to be LOW..HIGH, as 1..9")
            self.require(math.isfinite(low) and math.isfinite(high), f"range is {self.range}: it has to be finite")
            self.require(low < high, f"range is {self.range}: {low:g} is not below {high:g}")
        if self.lag_s != AUTO:
            try:
                lags = self.lags.values()
            except ValueError:
                self.require(False, f"lag_s is {self.lag_s!r}: a number of seconds, RATER=NUMBER,..., or auto")
            self.require(all(0 <= lag <= MAX_LAG_S for lag in lags), f"lag_s is {self.lag_s}: 0 to {MAX_LAG_S:g} s")

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest possible rating."""
        low, high = self.range.split("..")
        return float(low), float(high)

    @property
    def lags(self) -> dict[str, float]:
        """Reaction times in seconds by rater, that of all others under an empty name."""
        pairs = [part.rpartition("=") for part in self.lag_s.split(",")]
        return {"": 0.0} | {rater.strip(): float(lag) for rater, _, lag in pairs}
