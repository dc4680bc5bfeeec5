"""Film and tables of the people in one extracted video."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from numpy import ndarray

from affect import timeline
from affect.audio.part import waveforms_of
from affect.audio.speaking import mouth_open, silence_reason, verdicts, with_silence_reason
from affect.corpus.probe import Probe
from affect.corpus.video import MediaError
from affect.face.tracks import Faces, Person, person_names
from affect.plan.clips import Video, keys_of, load_probe
from affect.report.film import FilmPerson
from affect.report.film import film as film_people
from affect.settings.address import address
from affect.settings.run import Run
from affect.storage import files
from affect.storage.store import Store, slug
from affect.tracks.features import find_persons, load_table

LARGEST = (960, 960)
"""Maximum width and height of a film in pixels."""

OVERLAID: tuple[str, ...] = ("face", "audio")
"""Kinds of features to read; audio only if the run extracts it."""


class VideoPeople(NamedTuple):
    """Faces and persons of a video, rows of the faces, and rows of the audio if it is extracted."""

    probe: Probe
    faces: Faces
    table: pa.Table
    people: list[Person]
    audio: pa.Table | None


def film_of_people(
    row: dict[str, Any], videos: Mapping[str, Video], run: Run, where: dict[str, str], store: Store, out: str
) -> dict[str, Any]:
    """Makes the film of a video and summarises its people; existing results are reused."""
    entry = videos[row["stem"]]
    assert entry.head is not None
    film, read = files.join(out, f"{entry.stem}.mp4"), [m for m in OVERLAID if m in where]
    record = files.join(out, "_people", f"{slug(entry.stem)}-{address(entry.uri)}.json")
    try:
        clips = [str(store.outcome(key)) for kind in read for key in keys_of(entry, run, where, kind)]
    except FileNotFoundError:
        return _row(entry, reason=f"{' and '.join(read)} have not been extracted")
    except ValueError as error:  # a damaged object
        return _row(entry, reason=str(error))
    mark = address([where[m] for m in read], entry.head.fingerprint, clips, run.tracking, run.grid, run.wavlm.speaking)
    try:
        known = json.loads(files.read(record))
    except FileNotFoundError:
        known = {}
    if known.get("mark") == mark and files.exists(film):
        return _row(entry, known["people"], known["segments"])
    try:
        probe = load_probe(store, entry.probe_key)
        tables = {m: load_table(entry, run, where, m, store)[0] for m in read}
    except ValueError as error:
        return _row(entry, reason=str(error))
    seen = VideoPeople(probe, *find_persons(tables["face"], run), tables.get("audio"))
    lips = [_lip_area(seen, person) for person in seen.people]
    everyone = np.concatenate([np.empty(0), *lips])
    opened = [_mouth_states(lip_area, everyone, run) for lip_area in lips]
    named = zip(person_names(seen.people), lips, strict=True)
    segments = [_segments(entry, seen, name, lip_area, everyone, run) for name, lip_area in named]
    parts = zip(seen.people, person_names(seen.people), lips, opened, segments, strict=True)
    people = [_summary(entry, seen, *of_person) for of_person in parts]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        try:
            drawn = [FilmPerson(*each) for each in zip(person_names(seen.people), seen.people, opened, strict=True)]
            film_people(path, entry.uri, seen.probe, drawn, largest=LARGEST, captions=True)
        except (MediaError, OSError) as error:
            return _row(entry, reason=str(error))
        files.write(film, path.read_bytes())
    judged = [row for of_person in segments for row in of_person]
    files.write(record, json.dumps({"mark": mark, "people": people, "segments": judged}).encode())
    return _row(entry, people, judged)


def _row(
    entry: Video, people: Sequence[dict[str, Any]] = (), segments: Sequence[dict[str, Any]] = (), reason: str = ""
) -> dict[str, Any]:
    return {"stem": entry.stem, "people": json.dumps(people), "segments": json.dumps(segments), "reason": reason}


def _lip_area(seen: VideoPeople, person: Person) -> Float[ndarray, " frames"]:
    """Lip area of a person at every frame of the video, NaN without a mesh."""
    lip_area = np.full(len(seen.probe.time_s), np.nan)
    values = seen.table["lip_area"].take(person.rows).to_numpy(zero_copy_only=False)
    lip_area[seen.faces.frame[person.rows]] = values
    return lip_area


def _mouth_states(lip_area: Float[ndarray, " frames"], everyone: Float[ndarray, " rows"], run: Run) -> dict[int, str]:
    """State of the mouth, ``open`` or ``closed``, by frame with a mesh."""
    states = mouth_open(lip_area, run.wavlm.speaking, everyone)
    return {int(frame): "open" if states[frame] else "closed" for frame in np.flatnonzero(~np.isnan(lip_area))}


def _segments(
    entry: Video, seen: VideoPeople, name: str, lip_area: Float[ndarray, " frames"], everyone: ndarray, run: Run
) -> list[dict[str, Any]]:
    """Verdicts of the mouth filter on a person's segments."""
    clock = seen.probe.clock
    ranges_s = timeline.segments(clock.duration_s, run.grid.segment_s, run.grid.hop_s)
    ranges = timeline.frame_ranges(clock, ranges_s)
    judged = verdicts(lip_area, clock.fps, ranges, run.wavlm.speaking, everyone=everyone)
    if seen.audio is not None:
        waveforms = waveforms_of(seen.audio, len(ranges))
        judged = [
            with_silence_reason(v, silence_reason(w, run.wavlm.speaking))
            for v, w in zip(judged, waveforms, strict=True)
        ]
    return [
        {"video": entry.stem, "person": name, "segment": number, "start_s": start_s, "end_s": end_s} | verdict._asdict()
        for number, ((start_s, end_s), verdict) in enumerate(zip(ranges_s, judged, strict=True))
    ]


def _summary(
    entry: Video,
    seen: VideoPeople,
    person: Person,
    name: str,
    lip_area: Float[ndarray, " frames"],
    opened: dict[int, str],
    segments: list[dict[str, Any]],
) -> dict[str, Any]:
    time_s, box = seen.probe.time_s, seen.faces.box[person.rows]
    meshed = ~np.isnan(lip_area)
    return {
        "video": entry.stem,
        "person": name,
        "frames": len(time_s),
        "seen": len(person.rows),
        "bridged": int(person.bridged.sum()),
        "first_s": float(time_s[person.frame[0]]),
        "last_s": float(time_s[person.frame[-1]]),
        "x": float((box[:, 0] + box[:, 2]).mean() / 2),
        "y": float((box[:, 1] + box[:, 3]).mean() / 2),
        "lip_area": float(lip_area[meshed].mean()) if meshed.any() else float("nan"),
        "open_s": sum(state == "open" for state in opened.values()) / seen.probe.clock.fps,
        "segments": len(segments),
        "kept": sum(row["kept"] for row in segments),
    }
