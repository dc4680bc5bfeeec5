"""Annotations of tracks, in Aff-Wild2's layout or as ratings over time.

LABELS/Train_Set/<track>.txt, Validation_Set/<track>.txt      a row per frame, see affect/corpus/affwild2.py
LABELS/<track>.csv, .tsv, .parquet, .eaf, .txt                ratings over time, a file per track
LABELS/<rater>/<track>.csv, ...                               a folder per rater
LABELS.csv, ...                                               one file for all
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from jaxtyping import Float
from numpy import ndarray

from affect.corpus import affwild2, elan, ratings
from affect.corpus.affwild2 import LabelError, Split
from affect.corpus.ratings import Piece, Ratings
from affect.progress import say
from affect.settings.labels import AUTO, Labels
from affect.storage import files

SUFFIXES = (".csv", ".tsv", ".parquet", ".eaf", ".txt")
"""Suffixes of files with ratings over time; .txt is ELAN's tab-separated export."""
Development = Literal["required", "optional", "unused"]
"""Whether a development set is needed, used if there is one, or not read."""
FrameLabels = Mapping[Split, Mapping[str, Float[ndarray, "_ 2"]]]
"""Valence and arousal of every frame in [-1, 1], NaN where there is none, by split and track."""


@dataclass(frozen=True)
class Annotations:
    """Annotations of all tracks of a corpus, of one of two kinds.

    Args:
        per_frame: a row per frame, by split and track.
        over_time: ratings over time, by split and track.
        persons: whom tracks show, where that is said: folds keep a person's videos together.
    """

    per_frame: FrameLabels = field(default_factory=dict)
    over_time: Mapping[Split, Mapping[str, Ratings]] = field(default_factory=dict)
    persons: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of all tracks."""
        return [name for kind in (self.per_frame, self.over_time) for split in kind.values() for name in split]


def read(uri: str, settings: Labels, development: Development = "required") -> Annotations:
    """Reads annotations to train on.

    Args:
        uri: folder or file.
        settings: reading of ratings over time.
        development: whether a development set is needed.

    Raises:
        LabelError: there are none, they are invalid, or there is no development set although one is needed.
    """
    found = _ratings_files(uri)
    if not found:
        whole = development == "unused" or (development == "optional" and not affwild2.has_development(uri))
        return Annotations(affwild2.read_training(uri) if whole else affwild2.read_splits(uri))
    everything = _read_ratings(uri, found, settings)
    known = everything.over_time.items()
    splits: dict[Split, Mapping[str, Ratings]] = {s: tracks for s, tracks in known if tracks and s != "held_out"}
    if development == "unused":
        splits.pop("development", None)
    if development == "required" and "development" not in splits:
        raise LabelError(
            f"{uri}: no track is of the split development, to select epochs on: give some people that word in a column "
            "split, or cross-validate on all: train.py --cross-validate 5"
        )
    if "train" not in splits:
        raise LabelError(f"{uri}: no track is for training")
    return Annotations(over_time=splits, persons=everything.persons)


def annotated_tracks(uri: str, settings: Labels) -> list[str]:
    """Names of all annotated tracks, with or without a development set, those held out included.

    Raises:
        LabelError: there are no annotations, or they are invalid.
    """
    found = _ratings_files(uri)
    return _read_ratings(uri, found, settings).names if found else read(uri, settings, "optional").names


def read_truth(uri: str, settings: Labels) -> Annotations:
    """Reads annotations to score predictions of: those held out, else of the development set, else all.

    Raises:
        LabelError: there are none, or they are invalid.
    """
    found = _ratings_files(uri)
    if not found:
        whole = affwild2.read_splits(uri)["development"] if affwild2.has_development(uri) else affwild2.read_folder(uri)
        return Annotations({"held_out": whole})
    if settings.lag_s == AUTO:
        raise LabelError("--labels.lag-s auto is estimated in training: give the numbers that train.py printed")
    everything = _read_ratings(uri, found, settings)
    splits = everything.over_time
    tracks = splits["held_out"] or splits["development"] or splits["train"]
    return Annotations(over_time={"held_out": tracks}, persons=everything.persons)


def _ratings_files(uri: str) -> list[str]:
    """Paths of files with ratings over time below a folder, or the file itself; empty for Aff-Wild2's layout."""
    if uri.lower().endswith(SUFFIXES):
        if not files.exists(uri):
            raise LabelError(f"{uri}: no such file")
        return [""]
    names = sorted(name for name, _, _ in files.walk(uri) if name.lower().endswith(SUFFIXES))
    names = [name for name in names if not PurePosixPath(name).name.startswith(".")]
    if set(affwild2.FOLDERS.values()) & {name.partition("/")[0] for name in names}:
        return []
    texts = [files.join(uri, name) for name in names if name.lower().endswith(".txt")]
    if any(_has_row_per_frame(path) for path in texts):
        return []
    return names if len(texts) < len(names) or any(b"\t" in files.read(path) for path in texts) else []


def _has_row_per_frame(path: str) -> bool:
    """Whether a text file is one of Aff-Wild2's."""
    return files.read(path).lstrip(b"\xef\xbb\xbf").startswith(affwild2.HEADER.encode())


def _read_ratings(uri: str, names: Iterable[str], settings: Labels) -> Annotations:
    """Reads files of ratings; prints tracks that are left out with their reasons."""
    if not settings.range:
        raise LabelError(f"{uri}: state the range of the ratings: --labels.range 1..9, or -1..1, -100..100, as it was")
    pieces: list[Piece] = []
    for name in names:
        path = files.join(uri, name) if name else uri
        if name.count("/") > 1:
            say(f"left out: {path}: it lies deeper than a folder per rater")
            continue
        inside = PurePosixPath(name or PurePosixPath(uri).name)
        rater = inside.parent.name if len(inside.parts) > 1 else ""
        try:
            found = _read_file(path, inside.stem, rater, settings.bounds)
        except (LabelError, OSError) as error:
            found = [str(error)]
        for part in found:
            if isinstance(part, str):
                say(f"left out: {part}")
            else:
                pieces.append(part)
    splits, persons = _joined(pieces)
    if not any(splits.values()):
        raise LabelError(f"{uri}: no file of ratings can be used")
    return Annotations(over_time=splits, persons=persons)


def _read_file(path: str, track: str, rater: str, bounds: tuple[float, float]) -> list[Piece | str]:
    """Pieces of one file, by its suffix."""
    content = files.read(path)
    if path.lower().endswith(".eaf"):
        return elan.pieces(elan.read_eaf(content, path), path, track, rater, bounds)
    if path.lower().endswith(".txt"):
        return elan.pieces(elan.read_export(content, path), path, track, rater, bounds)
    return ratings.read_table(content, path, track, rater, bounds)


def _joined(pieces: Iterable[Piece]) -> tuple[dict[Split, dict[str, Ratings]], dict[str, str]]:
    """Ratings by split and track, and persons; prints tracks whose pieces contradict each other."""
    groups: dict[str, list[Piece]] = {}
    for piece in pieces:
        groups.setdefault(piece.track, []).append(piece)
    splits: dict[Split, dict[str, Ratings]] = {"train": {}, "development": {}, "held_out": {}}
    persons = {}
    for track, found in groups.items():
        raters = [piece.rater for piece in found]
        twice = next((piece for piece in found if raters.count(piece.rater) > 1), None)
        if twice:
            who = f"by rater {twice.rater}" if twice.rater else "by nobody named: give a column rater or a folder each"
            say(f"left out: track {track}: {twice.path}: it is rated twice {who}")
        elif len({(piece.split, piece.person, piece.by_frame) for piece in found}) > 1:
            say(f"left out: track {track}: {found[-1].path}: its raters' files differ in split, person or kind of time")
        else:
            splits[found[0].split][track] = Ratings({p.rater: p.curves for p in found}, found[0].by_frame)
            if found[0].person:
                persons[track] = found[0].person
    for person in sorted(set(persons.values())):
        used = {split for split, tracks in splits.items() for track in tracks if persons.get(track) == person}
        if len(used) > 1:
            say(f"warning: person {person} is in {' and '.join(sorted(used))}: scores are of a person that was seen")
    return splits, persons
