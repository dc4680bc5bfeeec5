"""Annotations of every frame: ratings over time, once the times of frames and the raters' reaction times are known.

STORE/_labels/<address:16>.json      agreement of raters, weights, reaction times
"""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from affect import timeline
from affect.corpus import affwild2, raters, ratings
from affect.corpus.images import DIMENSIONS
from affect.corpus.labels import Annotations, FrameLabels
from affect.corpus.ratings import Ratings
from affect.plan.clips import Video, load_probe
from affect.progress import say
from affect.settings.address import address
from affect.settings.labels import AUTO, Labels
from affect.settings.run import Run
from affect.storage import files
from affect.storage.store import Store
from affect.tracks.lag import estimate_lags

MOSTLY = 0.9
"""Share of the rated frames below which a rater is named as one who rated a part."""
PAST_END_S = 1.0
"""Seconds past the video's end from which a rating is surprising."""


def frame_labels(
    annotations: Annotations, run: Run, videos: Sequence[Video], store: Store, *, plan: bool = False
) -> tuple[Run, FrameLabels]:
    """Annotations of every frame; prints reaction times, agreement, and tracks that are left out.

    Args:
        annotations: from :func:`affect.corpus.labels.read`.
        run: the run, with the settings of labels.
        videos: probed; extracted, too, if reaction times are estimated.
        store: store of probes and features.
        plan: whether videos may not be extracted yet: then reaction times that would be estimated are 0.

    Returns:
        The run, with the estimated reaction times in its settings, and the annotations.

    Raises:
        LabelError: reaction times cannot be estimated, or no rating falls into a video.
    """
    if not annotations.over_time:
        return run, annotations.per_frame
    stems = {video.stem: video for video in videos}
    if run.labels.lag_s == AUTO:
        train = annotations.over_time.get("train", {})
        lags = {"": 0.0} if plan else estimate_lags(train, run, videos, store)
        if odd := [rater for rater in lags if set(rater) & set(",=")]:
            raise affwild2.LabelError(f"rater {odd[0]!r}: a name without , and = can be given a reaction time")
        words = ",".join(f"{rater}={lag:.2f}" if rater else f"{lag:.2f}" for rater, lag in lags.items())
        run = replace(run, labels=replace(run.labels, lag_s=words))
        if not plan:
            say(f"labels: reaction times on the training videos: --labels.lag-s {shlex.quote(words)}")
    times = {
        name: load_probe(store, video.probe_key).time_s
        for name in annotations.names
        if (video := _video(name, stems)) and video.head
    }
    return run, at_frames(annotations, times, run.labels, run.labels.lags, store)


def at_frames(
    annotations: Annotations,
    times: Mapping[str, Float[ndarray, " _"]],
    settings: Labels,
    lags: Mapping[str, float],
    store: Store | None,
) -> FrameLabels:
    """Annotations of every frame of tracks whose frames' times are known.

    Args:
        annotations: ratings over time.
        times: times of frames by track; a track without them is left out, because its video is.
        settings: gaps, and the mean of raters.
        lags: reaction times by rater, that of all others under an empty name.
        store: store that the agreement is written to; None to print it alone.

    Raises:
        LabelError: no rating falls into a video.
    """
    known = {rater for tracks in annotations.over_time.values() for track in tracks.values() for rater in track.curves}
    if unknown := sorted(lags.keys() - known - {""}):
        say(f"warning: labels: nobody is called {', '.join(unknown)}, whose reaction time is given")
    if lags.keys() - {""} and not lags.get("") and (others := sorted(known - lags.keys() - {""})):
        say(f"warning: labels: no reaction time is given of {', '.join(others)}: they count as on time")
    _warn_of_gaps(annotations, times, settings.max_gap_s)
    found: dict[str, dict[str, ndarray]] = {}
    for tracks in annotations.over_time.values():
        for name, track in tracks.items():
            if name not in times:
                continue
            curves = _at_frames(track, times[name], settings, lags)
            if any(~np.isnan(values).all() for values in curves.values()):
                found[name] = curves
            else:
                say(f"left out: track {name}: none of its ratings falls into its video's {times[name][-1]:.1f} s")
            _warn_past_end(name, track, times[name], lags)
    if not found:
        raise affwild2.LabelError("no rating falls into a video: do the labels belong to these videos?")
    agreed = raters.agreement(list(found.values()), settings.raters)
    _show(agreed, lags, store)
    weight = dict(zip(agreed.raters, agreed.weight, strict=True))
    means = {
        name: raters.mean_of(np.stack(list(curves.values())), np.stack([weight[rater] for rater in curves]))
        for name, curves in found.items()
    }
    rated = np.concatenate([~np.isnan(mean).any(axis=1) for mean in means.values()])
    say(f"labels: {100 * rated.mean():.0f} % of the frames of {len(means)} tracks have a rating")
    return {split: {n: means[n] for n in tracks if n in means} for split, tracks in annotations.over_time.items()}


def _video(track: str, stems: Mapping[str, Video]) -> Video | None:
    """Video of a track; None, with a message, if there is none."""
    try:
        return stems[affwild2.video_of(track, stems)]
    except affwild2.LabelError as error:
        say(f"left out: {error}")
        return None


def _at_frames(
    track: Ratings, time_s: Float[ndarray, " frames"], settings: Labels, lags: Mapping[str, float]
) -> dict[str, Float[ndarray, "frames 2"]]:
    """Ratings of every frame by each rater."""
    found = {}
    for rater, curves in track.curves.items():
        columns = [
            ratings.at_frames(curve, time_s, _lag_of(rater, lags), settings.max_gap_s, by_frame=track.by_frame)
            for curve in curves
        ]
        found[rater] = np.stack(columns, axis=1)
    return found


def _lag_of(rater: str, lags: Mapping[str, float]) -> float:
    """Reaction time of a rater: their own, else that of all others."""
    return lags.get(rater, lags.get("", 0.0))


def _warn_of_gaps(annotations: Annotations, times: Mapping[str, ndarray], max_gap_s: float) -> None:
    """Warns of raters whose usual step is longer than a gap that is bridged."""
    steps: dict[str, list[float]] = {}
    for tracks in annotations.over_time.values():
        for name in tracks.keys() & times.keys():
            for rater, pair in tracks[name].curves.items():
                at = ratings.seconds_of(pair[0], times[name], by_frame=tracks[name].by_frame)
                steps.setdefault(rater, []).extend(np.diff(at).tolist())
    for rater, found in steps.items():
        if found and (usual := float(np.quantile(found, 0.75))) > max_gap_s + timeline.TIME_TOLERANCE_S:
            say(
                f"warning: labels: {rater or 'the rater'} rated every {usual:.3g} s: frames between ratings more than "
                f"{max_gap_s:g} s apart get none (--labels.max-gap-s {1.5 * usual:.2g})"
            )


def _warn_past_end(name: str, track: Ratings, time_s: Float[ndarray, " frames"], lags: Mapping[str, float]) -> None:
    """Warns of ratings after the end of their video."""
    for rater, pair in track.curves.items():
        for curve in pair:
            at = ratings.seconds_of(curve, time_s, by_frame=track.by_frame)
            late = at[-1] - _lag_of(rater, lags) if len(at) else 0.0
            if late > time_s[-1] + PAST_END_S:
                who = f" by {rater}" if rater else ""
                say(f"warning: track {name}: ratings{who} go on to {late:.1f} s, its video ends at {time_s[-1]:.1f} s")
                break


def _show(agreed: raters.Agreement, lags: Mapping[str, float], store: Store | None) -> None:
    """Prints the agreement of several raters, and writes it to the store."""
    if len(agreed.raters) > 1:
        words = ", ".join(f"{value:.3f} {name}" for name, value in zip(DIMENSIONS, agreed.pairwise, strict=True))
        say(f"labels: {len(agreed.raters)} raters, mean CCC of pairs {words}")
        for i, rater in enumerate(agreed.raters):
            rows = agreed.with_rest[i], agreed.weight[i]
            rest, weight = (" / ".join(f"{value:.3f}" for value in row) for row in rows)
            part = "" if agreed.rated[i] >= MOSTLY else f"; rated {100 * agreed.rated[i]:.0f} % of the frames alone"
            lag = f", {_lag_of(rater, lags):.2f} s late" if any(lags.values()) else ""
            say(f"labels: {rater or 'unnamed'}: CCC with the others' mean {rest}, weight {weight}{lag}{part}")
    if store is not None:
        note = {
            "raters": agreed.raters,
            "pairwise": _plain(agreed.pairwise),
            "with_rest": [_plain(row) for row in agreed.with_rest],
            "weight": [_plain(row) for row in agreed.weight],
            "rated": _plain(agreed.rated),
            "lag_s": dict(lags),
        }
        files.write(files.join(store.uri, "_labels", f"{address(note)}.json"), json.dumps(note, indent=1).encode())


def _plain(values: Iterable[float]) -> list[float | None]:
    """Numbers for JSON, None for NaN."""
    return [None if np.isnan(value) else round(float(value), 6) for value in values]
