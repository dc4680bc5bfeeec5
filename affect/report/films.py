"""Makes the film of a predicted video, with boxes and names of its people."""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from av.error import FFmpegError

from affect.corpus.film import read_note
from affect.corpus.hints import Points
from affect.face.tracks import person_at, person_named
from affect.plan.clips import Video, load_probe
from affect.report.film import FilmPerson, film
from affect.report.pages import by_track
from affect.settings.address import address
from affect.settings.run import Run
from affect.storage import files
from affect.storage.store import Store, read_table
from affect.tracks.features import find_persons, load_table

LARGEST = (640, 360)
"""Maximum width and height of a film in pixels."""

QUALITY = 27
"""Quality of the encoder, see :func:`affect.corpus.film.write_film`."""


def film_row(
    row: dict[str, Any],
    videos: Mapping[str, Video],
    run: Run,
    where: dict[str, str],
    store: Store,
    out: str,
    hints: Mapping[str, Points],
) -> dict[str, Any]:
    """Makes the film of one predicted video; adds the reason if there is none, its length and the time taken, in s."""
    start = time.monotonic()
    reason, made_s = make_film(videos[row["stem"]], run, where, store, out, hints)
    return {**row, "reason": reason, "made_s": made_s, "took_s": time.monotonic() - start if made_s else 0.0}


def make_film(
    entry: Video, run: Run, where: dict[str, str], store: Store, out: str, hints: Mapping[str, Points]
) -> tuple[str, float]:
    """Makes a film; returns the reason if there is none, and its length in seconds (0 if it already existed)."""
    assert entry.head is not None
    target = film_path(out, entry.stem)
    try:
        table = read_table(files.join(out, f"{entry.stem}.parquet"))
    except FileNotFoundError:
        return "it was not predicted", 0.0
    people = [(rows["track"][0].as_py(), rows["person"][0].as_py()) for rows in by_track(table)]
    points = {track: [tuple(point) for point in hints.get(track, ())] for track, _ in people}
    mark = address(where.get("face"), entry.head.fingerprint, run.tracking, people, points, LARGEST, QUALITY)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        if files.exists(target):
            path.write_bytes(files.read(target))
            if read_note(path) == mark:
                return "", 0.0
        drawn = []
        if "face" in where and people:
            faces, persons = _people(entry, run, where, store)
            for track, name in people:
                person = person_at(persons, hints[track]) if track in hints else person_named(persons, faces, name)
                if person is not None:
                    drawn.append(FilmPerson(name, person))
        probe = load_probe(store, entry.probe_key)
        try:
            film(path, entry.uri, probe, drawn, largest=LARGEST, captions=False, note=mark, quality=QUALITY)
        except (ValueError, OSError, FFmpegError) as error:
            return str(error), 0.0
        files.write(target, path.read_bytes())
    return "", entry.head.duration_s


def _people(entry: Video, run: Run, where: dict[str, str], store: Store) -> tuple[Any, list[Any]]:
    faces, _, persons = find_persons(load_table(entry, run, where, "face", store)[0], run)
    return faces, persons


def film_path(out: str, stem: str) -> str:
    """Path of a video's film in a folder of predictions."""
    return files.join(out, "report", "videos", f"{stem}.mp4")
