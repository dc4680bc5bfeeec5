"""Reaction times of raters: how late their ratings follow the face.

    R2(lag) = share of the variance of rating(t + lag) that a linear map of the expression coefficients at t explains

The lag with the highest R2, the mean of valence and arousal, is taken. Both sides are centred within each track.

Source: Nicolle, Rapp, Bailly, Prevost and Chetouani 2012, delay estimation of continuous annotations; Mariooryad and
Busso 2015, which maximises mutual information instead.
Differs: a linear map of all coefficients, of which the strongest components are kept.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from affect.corpus import affwild2
from affect.corpus.affwild2 import LabelError
from affect.corpus.ratings import Curve, Ratings, at_frames
from affect.plan.addresses import feature_addresses
from affect.plan.clips import Video
from affect.progress import say
from affect.settings.labels import MAX_LAG_S
from affect.settings.run import Run
from affect.storage.columns import array, matrix
from affect.storage.store import Store
from affect.tracks.assembly import person_of
from affect.tracks.features import load_features

RATE = 10.0
"""Points per second."""
STEP_S = 0.1
"""Seconds between the lags that are tried; a parabola refines the best one."""
COMPONENTS = 8
"""Principal components of the expression coefficients."""
MIN_POINTS = 100
"""Fewest points of an estimate: ten seconds."""
FLAT = 0.02
"""Smallest rise of R2 above its mean over all lags; below it the estimate means little."""


Rated = tuple["Motion", tuple[Curve, Curve], bool]
"""Expression of a track, its ratings by one rater, and whether their times are frames."""


class Motion:
    """Expression of a track's person over time.

    Args:
        time_s: times of points with a face.
        values: expression coefficients at these times.
        clock_s: times of all frames.
    """

    def __init__(self, time_s: Float[ndarray, " n"], values: Float[ndarray, "n 52"], clock_s: ndarray) -> None:
        """Keeps about :data:`RATE` points per second."""
        step = max(1, round(len(clock_s) / max(clock_s[-1], 1e-9) / RATE))
        self.time_s, self.values, self.clock_s = time_s[::step], values[::step], clock_s


def estimate_lags(tracks: Mapping[str, Ratings], run: Run, videos: Sequence[Video], store: Store) -> dict[str, float]:
    """Reaction time of every rater in seconds, from training videos.

    Args:
        tracks: ratings of training tracks.
        run: the run.
        videos: the videos, extracted.
        store: store of the features.

    Raises:
        LabelError: the run extracts no faces, or a rater rated less than ten seconds with a face.
    """
    if "face" not in run.extracted:
        raise LabelError("--labels.lag-s auto follows the face, which this recipe does not extract: give a number")
    motions = dict(_motions(tracks, run, videos, store))
    raters = sorted({rater for name in motions for rater in tracks[name].curves})
    found = {}
    for rater in raters:
        pairs = [
            (motions[name], tracks[name].curves[rater], tracks[name].by_frame)
            for name in motions
            if rater in tracks[name].curves
        ]
        found[rater], best, flat = best_lag(pairs, run.labels.max_gap_s, rater)
        if best - flat < FLAT:
            words = f"R2 {best:.2f}, {flat:.2f} on average over all lags"
            say(f"warning: labels: the lag of {rater or 'the rater'} is uncertain: {words}")
    if not found:
        raise LabelError("--labels.lag-s auto: no training video with ratings shows a face: give a number")
    return found


def _motions(
    tracks: Mapping[str, Ratings], run: Run, videos: Sequence[Video], store: Store
) -> Iterator[tuple[str, Motion]]:
    """Expression of the person of every track with a face."""
    stems = {video.stem: video for video in videos}
    where = {"face": feature_addresses(run)["face"]}
    for name in tracks:
        try:
            video = stems[affwild2.video_of(name, stems)]
        except LabelError:
            continue  # is said where tracks are joined with videos
        if not video.head:
            continue
        features = load_features(video, run, where, store)
        person = person_of(features, affwild2.person_of(name, video.stem, tracks, stems), run)
        if person is not None:
            rows = features.tables["face"].take(person.rows)
            rows = rows.filter(rows["blendshapes"].is_valid())
            if rows.num_rows:
                yield name, Motion(array(rows["time_s"]), matrix(rows["blendshapes"]), features.probe.time_s)


def best_lag(pairs: Sequence[Rated], max_gap_s: float, rater: str = "") -> tuple[float, float, float]:
    """The lag of one rater, R2 there, and the mean R2 of all lags.

    Args:
        pairs: expression, ratings, and whether their times are frames, of every track.
        max_gap_s: longest time between two ratings to interpolate in.
        rater: the rater's name, for messages.

    Raises:
        LabelError: there are too few points.
    """
    lags = np.arange(0, MAX_LAG_S + STEP_S / 2, STEP_S)
    basis = _components([motion.values for motion, _, _ in pairs])
    reached = np.array([_explained(pairs, basis, float(lag), max_gap_s) for lag in lags])
    if np.isnan(reached).all():
        raise LabelError(
            f"--labels.lag-s auto: {rater or 'the rater'} rated less than ten seconds with a face: give a number"
        )
    reached = np.nan_to_num(reached, nan=0.0)
    i = int(reached.argmax())
    lag = float(lags[i])
    if 0 < i < len(lags) - 1:  # vertex of the parabola through three points
        below, top, above = reached[i - 1 : i + 2]
        curvature = below - 2 * top + above
        lag += STEP_S * 0.5 * (below - above) / curvature if curvature < 0 else 0.0
    return lag, float(reached[i]), float(reached.mean())


def _components(parts: Sequence[Float[ndarray, "_ 52"]]) -> Float[ndarray, "52 K"]:
    """Principal directions of the coefficients, centred within each track."""
    centred = np.concatenate([part - part.mean(axis=0) for part in parts])
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return vectors[:, ::-1][:, :COMPONENTS]


def _explained(
    pairs: Sequence[Rated],
    basis: Float[ndarray, "52 K"],
    lag_s: float,
    max_gap_s: float,
) -> float:
    """R2 of valence and arousal, their mean; NaN with fewer than :data:`MIN_POINTS` points."""
    shares = []
    for channel in range(2):
        inputs, targets = [], []
        for motion, curves, by_frame in pairs:
            rated = at_frames(curves[channel], motion.clock_s, lag_s, max_gap_s, by_frame=by_frame)
            y = np.interp(motion.time_s, motion.clock_s, rated)  # NaN beside a frame without a rating
            known = ~np.isnan(y)
            if known.sum() > 1:
                x = motion.values[known] @ basis
                inputs.append(x - x.mean(axis=0))
                targets.append(y[known] - y[known].mean())
        if sum(map(len, targets)) < MIN_POINTS:
            return float("nan")
        x, y = np.concatenate(inputs), np.concatenate(targets)
        weight = np.linalg.lstsq(x, y, rcond=None)[0]
        total = float(y @ y)
        shares.append(1 - float(((y - x @ weight) ** 2).sum()) / total if total > 0 else 0.0)
    return float(np.mean(shares))
