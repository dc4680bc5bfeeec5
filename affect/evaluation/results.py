"""Tables of results: CCC with intervals over videos, differences, scores without a modality, gate weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from numpy import ndarray
from rich.markup import escape
from rich.table import Table

from affect import concordance
from affect.concordance import Moments, Score
from affect.evaluation import late
from affect.modalities import MODALITIES
from affect.settings.recipes import PUBLISHED, Published
from affect.storage import schema

LATE = "late fusion"
LATE_FOLDS, MIN_LATE_VIDEOS = 5, 4
DIMENSIONS = ("valence", "arousal", "mean")


@dataclass(frozen=True)
class Answers:
    """Predictions of one system on annotated tracks.

    Args:
        title: name of the system.
        modalities: modalities that it uses.
        tracks: valence and arousal per frame, by track.
        without: predictions without a modality, by removed modality and track; empty if not computed.
        gates: gate weights of a fusion per frame, by track; empty if not computed.
        sources: names of the gates' columns.
    """

    title: str
    modalities: tuple[str, ...]
    tracks: Mapping[str, Float[ndarray, "_ 2"]]
    without: Mapping[str, Mapping[str, ndarray]] = field(default_factory=dict)
    gates: Mapping[str, ndarray] = field(default_factory=dict)
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Truth:
    """Annotated tracks.

    Args:
        gold: annotations by track.
        video: name of the video by track.
    """

    gold: Mapping[str, Float[ndarray, "_ 2"]]
    video: Mapping[str, str]

    @property
    def videos(self) -> list[str]:
        """Names of the videos, sorted."""
        return sorted({self.video[track] for track in self.gold})

    def moments(self, tracks: Mapping[str, ndarray]) -> list[Moments]:
        """Moments of each video; the jackknife of the intervals leaves out one video at a time."""
        parts: dict[str, list[Moments]] = {video: [] for video in self.videos}
        for name, gold in self.gold.items():
            parts[self.video[name]].append(Moments.of(gold, at_labels(tracks[name], len(gold))))
        return [concordance.merge(part) for part in parts.values()]


def at_labels(values: ndarray, num: int) -> ndarray:
    """Predictions of ``num`` labelled frames; the last frame is repeated if the video has fewer frames than labels.

    :func:`affect.corpus.affwild2.check_length` limits how many frames may be missing.
    """
    return values[np.minimum(np.arange(num), len(values) - 1)]


class LateFusion(NamedTuple):
    """Late fusion of all systems.

    Args:
        answers: predictions of every video, with weights fitted on other videos.
        weights: mean weights of valence and arousal, as text.
    """

    answers: Answers
    weights: str


def late_fusion(answers: Sequence[Answers], truth: Truth) -> LateFusion:
    """Late fusion of all systems; each video gets weights fitted on other videos.

    Raises:
        ValueError: there are fewer than two systems or four videos, or the labels are missing or constant.
    """
    videos = truth.videos
    if len(answers) < 2 or len(videos) < MIN_LATE_VIDEOS:
        raise ValueError(
            f"it needs 2 systems and {MIN_LATE_VIDEOS} videos, but there are {len(answers)} and {len(videos)}"
        )
    names = {video: [name for name in truth.gold if truth.video[name] == video] for video in videos}
    golds = {video: np.concatenate([truth.gold[name] for name in of_video]) for video, of_video in names.items()}
    predictions = {
        video: np.stack(
            [np.concatenate([at_labels(a.tracks[n], len(truth.gold[n])) for n in of_video]) for a in answers]
        )
        for video, of_video in names.items()
    }
    num_folds = min(LATE_FOLDS, len(videos))
    folds = [set(videos[i::num_folds]) for i in range(num_folds)]
    fused, weights = late.combine_unseen(golds, predictions, folds)
    tracks: dict[str, ndarray] = {}
    for video, of_video in names.items():
        edges = np.cumsum([len(truth.gold[name]) for name in of_video])[:-1]
        tracks |= zip(of_video, np.split(fused[video], edges), strict=True)
    listed = "; ".join(f"{a.title} {v:.2f} / {w:.2f}" for a, (v, w) in zip(answers, weights, strict=True))
    return LateFusion(Answers(LATE, tuple(MODALITIES), tracks), f"of valence / arousal: {listed}")


def scores_table(answers: Sequence[Answers], truth: Truth, title: str, *, paper: bool = False) -> Table:
    """Terminal table of scores, with a column of published scores if ``paper``."""
    columns = ["system", *DIMENSIONS, "videos", "frames"] + ["published on Aff-Wild2: V, A, mean, test"] * paper
    table = _table(title, columns)
    for system in answers:
        score = concordance.score(truth.moments(system.tracks))
        published = [_published(PUBLISHED.get(system.title.partition(",")[0]))] if paper else []
        table.add_row(system.title, *_cells(score), str(score.num_units), f"{score.num_frames:,}", *published)
    return table


def _published(row: Published | None) -> str:
    if row is None:
        return ""
    test = "" if row.test is None else f", {row.test:.2f}"
    return f"{row.valence:.3f}, {row.arousal:.3f}, {row.mean:.3f}{test}"


def differences(answers: Sequence[Answers], truth: Truth) -> Table | None:
    """Gain of each fusion over the best unimodal system on the same tracks; None if one of the two is missing."""
    single = [system for system in answers if len(system.modalities) == 1]
    fusions = [system for system in answers if len(system.modalities) > 1]
    if not single or not fusions:
        return None
    moments = {system.title: truth.moments(system.tracks) for system in answers}
    means = {system.title: concordance.score(moments[system.title]).ccc[2] for system in single}
    best = max(means, key=lambda title: np.nan_to_num(means[title], nan=-1))
    over = f"95 % interval over {sum(part.count > 0 for part in moments[best])} videos, paired"
    table = _table(
        f"CCC minus that of {best}, the best modality on these very tracks [{over}]", ["system", *DIMENSIONS]
    )
    for system in fusions:
        table.add_row(system.title, *_cells(concordance.difference(moments[system.title], moments[best]), signed=True))
    return table


def ablations(answers: Sequence[Answers], truth: Truth) -> Table | None:
    """Mean CCC of each fusion without a modality in prediction; None if not computed."""
    fusions = [system for system in answers if system.without]
    if not fusions:
        return None
    over = f"95 % interval over {sum(part.count > 0 for part in truth.moments(fusions[0].tracks))} videos"
    title = f"mean CCC with a modality taken away when it predicts [{over}]"
    table = _table(title, ["system", "whole", *(f"no {m}" for m in MODALITIES)])
    for system in fusions:
        cells = [_cells(concordance.score(truth.moments(system.tracks)))[2]]
        for modality in MODALITIES:
            tracks = system.without.get(modality)
            cells.append(_cells(concordance.score(truth.moments(tracks)))[2] if tracks else "")
        table.add_row(system.title, *cells)
    return table


def trust(answers: Sequence[Answers]) -> Table | None:
    """Mean gate weights of each fusion over frames with evidence; None if not computed."""
    fusions = [system for system in answers if system.gates]
    if not fusions:
        return None
    table = _table("mean gate weight, over frames with evidence", ["system", "source", "weight"])
    for system in fusions:
        gates = np.concatenate(list(system.gates.values()))
        means = gates[gates.sum(axis=1) > 0].mean(axis=0) if (gates.sum(axis=1) > 0).any() else np.zeros(gates.shape[1])
        for source, weight in zip(system.sources, means, strict=True):
            table.add_row(system.title, source, f"{weight:.3f}")
        for modality, weight in by_modality(means, system.sources).items():
            table.add_row(system.title, f"{modality} in all", f"{weight:.3f}")
    return table


def by_modality(weights: Float[ndarray, " sources"], sources: Sequence[str]) -> dict[str, float]:
    """Weight of each modality: half of an expert's weight goes to its query and half to its context modality.

    Empty if the sources are modalities (RAAV).
    """
    shares: dict[str, float] = {}
    for source, weight in zip(sources, weights, strict=True):
        if " asks " in source:
            for modality in source.split(" asks "):
                shares[modality] = shares.get(modality, 0.0) + float(weight) / 2
    return shares


def videos_table(answers: Sequence[Answers], truth: Truth) -> Table:
    """Terminal table of each system's mean CCC on each video."""
    table = _table("mean CCC of each video", ["video", *(system.title for system in answers)])
    columns = [[float(part.ccc().mean()) for part in truth.moments(system.tracks)] for system in answers]
    for video, *values in zip(truth.videos, *columns, strict=True):
        table.add_row(escape(video), *("constant labels" if np.isnan(v) else f"{v:.3f}" for v in values))
    return table


def per_video(answers: Sequence[Answers], truth: Truth) -> pa.Table:
    """CCC of each system on each video; null if the video's labels are constant."""
    rows = [
        {"system": system.title, "video": video, "frames": part.count, "valence": v, "arousal": a, "mean": (v + a) / 2}
        for system in answers
        for video, part in zip(truth.videos, truth.moments(system.tracks), strict=True)
        for v, a in [part.ccc().tolist()]
    ]
    return pa.Table.from_pylist(rows, schema=schema.PER_VIDEO)


def per_second(answers: Sequence[Answers], time_s: Mapping[str, Float[ndarray, " _"]]) -> pa.Table:
    """Mean gate weights of each fusion, per track and second."""
    rows = []
    for system in answers:
        for name, gates in system.gates.items():
            seconds = time_s[name].astype(int)
            for second in np.unique(seconds):
                means = gates[seconds == second].mean(axis=0)
                for source, weight in zip(system.sources, means.tolist(), strict=True):
                    rows.append((system.title, name, int(second), source, weight))
    columns = zip(*rows, strict=True) if rows else [[]] * len(schema.GATES)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema.GATES, strict=True)], schema=schema.GATES)


def scores(answers: Sequence[Answers], truth: Truth) -> pa.Table:
    """Scores of each system, with all modalities and without each (:data:`affect.storage.schema.SCORES`)."""
    rows = []
    for system in answers:
        variants: dict[str, Mapping[str, ndarray]] = {"": system.tracks}
        variants |= {str(m): tracks for m, tracks in system.without.items()}
        for removed, tracks in variants.items():
            score = concordance.score(truth.moments(tracks))
            row: dict[str, Any] = {"system": system.title, "without": removed, "videos": score.num_units}
            for i, name in enumerate(DIMENSIONS):
                row |= {name: score.ccc[i], f"{name}_low": score.low[i], f"{name}_high": score.high[i]}
            rows.append(row | {"frames": score.num_frames})
    return pa.Table.from_pylist(rows, schema=schema.SCORES)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column in ("system", "source") else "right", no_wrap=True)
    return table


def _cells(score: Score, *, signed: bool = False) -> list[str]:
    """CCC of valence, arousal and their mean, as text with intervals."""
    form = "{:+.3f}" if signed else "{:.3f}"
    return [escape(score.text(index, form=form)) for index in range(len(DIMENSIONS))]
