"""A film and tables of the people of one extracted video."""

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
from affect.corpus.video import MediaError, Probe
from affect.face.tracks import Faces, Person, person_names
from affect.plan.clips import Video, keys_of, load_probe
from affect.report.film import Cast
from affect.report.film import film as film_people
from affect.settings.address import address
from affect.settings.run import Run
from affect.storage import files
from affect.storage.store import Store, slug
from affect.tracks.features import load_table, who_is_who

LARGEST = (960, 960)
"""Width and height of a film in pixels at most."""


OVERLAID: tuple[str, ...] = ("face", "audio")
"""Features that are read; audio where the run extracts it."""


class Seen(NamedTuple):
    """Whom a video shows, and what is heard in it if its sound is extracted."""

    probe: Probe
    faces: Faces
    table: pa.Table
    people: list[Person]
    audio: pa.Table | None


def film_of_people(
    row: dict[str, Any], videos: Mapping[str, Video], run: Run, where: dict[str, str], store: Store, out: str
) -> dict[str, Any]:
    """One video's film and people; what is there is not done again."""
    entry = videos[row["stem"]]
    assert entry.head is not None
    film, read = files.join(out, f"{entry.stem}.mp4"), [m for m in OVERLAID if m in where]
    record = files.join(out, "_people", f"{slug(entry.stem)}-{address(entry.uri)}.json")
    try:
        clips = [str(store.outcome(key)) for kind in read for key in keys_of(entry, run, where, kind)]
    except FileNotFoundError:
        return _row(entry, reason=f"{' and '.join(read)} have not been extracted")
    except ValueError as error:  # an object is damaged
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
    seen = Seen(probe, *who_is_who(tables["face"], run), tables.get("audio"))
    lips = [_lips(seen, person) for person in seen.people]
    everyone = np.concatenate([np.empty(0), *lips])
    opened = [_mouth(lip_area, everyone, run) for lip_area in lips]
    named = zip(person_names(seen.people), lips, strict=True)
    segments = [_segments(entry, seen, name, lip_area, everyone, run) for name, lip_area in named]
    parts = zip(seen.people, person_names(seen.people), lips, opened, segments, strict=True)
    people = [_summary(entry, seen, *of_person) for of_person in parts]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        try:
            cast = [Cast(*each) for each in zip(person_names(seen.people), seen.people, opened, strict=True)]
            film_people(path, entry.uri, seen.probe, cast, largest=LARGEST, captions=True)
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


def _lips(seen: Seen, person: Person) -> Float[ndarray, " frames"]:
    """Lip area at every frame of the video, NaN without a mesh."""
    lip_area = np.full(len(seen.probe.time_s), np.nan)
    values = seen.table["lip_area"].take(person.rows).to_numpy(zero_copy_only=False)
    lip_area[seen.faces.frame[person.rows]] = values
    return lip_area


def _mouth(lip_area: Float[ndarray, " frames"], everyone: Float[ndarray, " rows"], run: Run) -> dict[int, str]:
    """State of the mouth at the frames that show it."""
    states = mouth_open(lip_area, run.wavlm.speaking, everyone)
    return {int(frame): "open" if states[frame] else "closed" for frame in np.flatnonzero(~np.isnan(lip_area))}


def _segments(
    entry: Video, seen: Seen, name: str, lip_area: Float[ndarray, " frames"], everyone: ndarray, run: Run
) -> list[dict[str, Any]]:
    """What the audio filter says of a person's segments."""
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
    seen: Seen,
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
