"""Usable labelled tracks and the keys of their tables, which hash everything that affects their content."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from affect.corpus import affwild2
from affect.corpus.affwild2 import Split
from affect.corpus.hints import Points
from affect.modalities import MODALITIES
from affect.modality import Place
from affect.plan.clips import Video, clip_states
from affect.progress import say
from affect.settings.address import address
from affect.settings.run import Run
from affect.storage import schema
from affect.storage.store import Store, slug
from affect.tracks.tables import BASE, TrackRef, ratings_table

Clips = Mapping[str, list[tuple[str, str]]]
"""Key and outcome of every clip of a video, by modality."""


class Labelled(NamedTuple):
    """A track and its annotations (frames, 2)."""

    ref: TrackRef
    gold: ndarray


def find_tracks(
    run: Run,
    videos: Sequence[Video],
    where: Mapping[str, str],
    labels: Mapping[Split, Mapping[str, ndarray]],
    store: Store,
    hints: Mapping[str, Points],
    persons: Mapping[str, str],
) -> list[Labelled]:
    """Labelled tracks whose videos are extracted; prints the others with their reasons.

    Args:
        run: the run, which selects the modalities.
        videos: probed and extracted.
        where: addresses of the features by kind, from :func:`~affect.plan.addresses.feature_addresses`.
        labels: annotations by split and track.
        store: the feature store.
        hints: points on the face of a track's person, by track.
        persons: whom tracks show, where the labels say it.
    """
    names = affwild2.track_names(labels)
    warn_unknown(hints, names)
    stems = {video.stem for video in videos}  # also of unusable videos
    usable = {video.stem: video for video in videos if video.head}
    extracted = _clips(videos, run, where, store)
    found: list[Labelled] = []
    uneven = []
    for split, tracks in labels.items():
        for name, gold in tracks.items():
            try:
                video = usable[affwild2.video_of(name, stems)]
                person = affwild2.person_of(name, video.stem, names, stems)
                assert video.head is not None
                if warning := affwild2.check_length(name, len(gold), video.head.num_frames, video.head.duration_s):
                    say(f"warning: {warning}")
                if video.stem not in extracted:
                    raise FileNotFoundError(video.stem)
            except (affwild2.LabelError, KeyError, FileNotFoundError) as error:
                say(f"left out: {_why(name, error)}")
                continue
            keys = _keys(name, person, video, gold, run, extracted[video.stem], hints.get(name, ()))
            ref = TrackRef(name, split, video.stem, person, keys, video.head.content, persons.get(name, ""))
            found.append(Labelled(ref, gold))
            uneven += [name] * (len(gold) != video.head.num_frames)
    if uneven:
        say(
            f"assemble: {len(uneven)} tracks have not as many label rows as frames, as {uneven[0]}: surplus frames are "
            "cut, surplus rows take the last frame's evidence"
        )
    if unlabelled := len(usable.keys() - {track.ref.video for track in found}):
        say(f"assemble: {unlabelled} videos have no label and are left out")
    return found


def warn_unknown(hints: Mapping[str, Points], names: Sequence[str]) -> None:
    """Prints hints that belong to no track."""
    if unknown := sorted(set(hints) - set(names)):
        say(f"hints: there is no track {', '.join(unknown)}")


def _clips(
    videos: Sequence[Video], run: Run, where: Mapping[str, str], store: Store
) -> dict[str, dict[str, list[tuple[str, str]]]]:
    """Clips of each fully extracted video, by stem; a clip with a cached outcome is not read."""
    found: dict[str, dict[str, list[tuple[str, str]]]] = {video.stem: {} for video in videos if video.head}
    for modality, index, keys, states in clip_states(videos, run, where, store):
        if all(key in states for key in keys):
            found[videos[index].stem][modality] = [(key, str(states[key].outcome)) for key in keys]
    return {stem: clips for stem, clips in found.items() if len(clips) == len(where)}


def _keys(name: str, person: str, video: Video, gold: ndarray, run: Run, clips: Clips, hints: Points) -> dict[str, str]:
    """Keys of a track's tables, each a hash of everything that affects its content."""
    assert video.head is not None
    labels = hashlib.sha256(np.ascontiguousarray(gold).tobytes()).hexdigest()
    base = address(schema.VERSION, name, video.head.fingerprint, run.grid, run.wavlm.blocks, labels)
    folder = f"tracks/{slug(name)}-{base}"
    keys = {table: f"{folder}/{table}.arrow" for table in BASE}
    addresses: dict[str, str] = {}
    for modality in run.extracted:
        place = Place(folder, video.stem, video.head.fingerprint, person, hints, run, clips, addresses)
        addresses[modality] = MODALITIES[modality].part_address(place)
        keys |= MODALITIES[modality].part_keys(place, addresses[modality])
    keys |= {ratings_table(m): f"{folder}/{ratings_table(m)}-{addresses[m]}.arrow" for m in run.rated}
    return keys


def _why(name: str, error: Exception) -> str:
    match error:
        case KeyError():
            return f"track {name}: its video cannot be used"
        case FileNotFoundError():
            return f"track {name}: its video has not been extracted with these settings and labels; run jobs/extract.py"
    return str(error)
