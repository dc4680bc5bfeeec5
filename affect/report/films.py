"""The film of a predicted video: its people drawn onto it."""

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
from affect.report.film import Cast, film
from affect.report.pages import by_track
from affect.settings.address import address
from affect.settings.run import Run
from affect.storage import files
from affect.storage.store import Store, read_table
from affect.tracks.features import load_table, who_is_who

LARGEST = (640, 360)
"""Width and height of a film in pixels at most."""


QUALITY = 27
"""Of a film, see :func:`affect.corpus.film.write_film`."""


def film_row(
    row: dict[str, Any],
    videos: Mapping[str, Video],
    run: Run,
    where: dict[str, str],
    store: Store,
    out: str,
    hints: Mapping[str, Points],
) -> dict[str, Any]:
    """Make the film of one predicted video; returns why there is none, its seconds, and the seconds that it took."""
    start = time.monotonic()
    reason, made_s = make_film(videos[row["stem"]], run, where, store, out, hints)
    return {**row, "reason": reason, "made_s": made_s, "took_s": time.monotonic() - start if made_s else 0.0}


def make_film(
    entry: Video, run: Run, where: dict[str, str], store: Store, out: str, hints: Mapping[str, Points]
) -> tuple[str, float]:
    """Make a film; returns why there is none, and its length if it was made now."""
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
        cast = []
        if "face" in where and people:
            faces, persons = _seen(entry, run, where, store)
            for track, name in people:
                person = person_at(persons, hints[track]) if track in hints else person_named(persons, faces, name)
                if person is not None:
                    cast.append(Cast(name, person))
        probe = load_probe(store, entry.probe_key)
        try:
            film(path, entry.uri, probe, cast, largest=LARGEST, captions=False, note=mark, quality=QUALITY)
        except (ValueError, OSError, FFmpegError) as error:
            return str(error), 0.0
        files.write(target, path.read_bytes())
    return "", entry.head.duration_s


def _seen(entry: Video, run: Run, where: dict[str, str], store: Store) -> tuple[Any, list[Any]]:
    faces, _, persons = who_is_who(load_table(entry, run, where, "face", store)[0], run)
    return faces, persons


def film_path(out: str, stem: str) -> str:
    """Place of a video's film in a folder of predictions."""
    return files.join(out, "report", "videos", f"{stem}.mp4")
