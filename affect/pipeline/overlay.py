"""Films and tables of the people of extracted videos, made in parallel.

OUT/<video>.mp4       the video with every person's box, name and mouth
OUT/people.csv        one row per person: time on screen, position, mouth opening
OUT/segments.csv      one row per segment of a person: result of the mouth filter of the audio
OUT/_people/          both tables per video, with the address of their inputs
"""

import json
from typing import Any

import pyarrow as pa

from affect.pipeline import graph
from affect.plan.addresses import feature_addresses
from affect.plan.clips import Video
from affect.progress import Meter, say
from affect.settings.run import Run
from affect.storage import files, schema
from affect.storage.store import Store, encode_csv

MAX_LINES = 20
"""Most people that are printed; the table has all."""


def overlay(run: Run, videos: list[Video], store: Store, out: str) -> None:
    """Makes the missing films of extracted videos, writes the tables of people and segments, and prints the people.

    Args:
        run: the run.
        videos: probed and extracted.
        store: store of the features.
        out: folder of films and tables.

    Raises:
        ValueError: the folder is one of the videos' folders, or lies in one.
    """
    out, where = files.absolute(out), feature_addresses(run)
    for folder in {entry.uri.rpartition("/")[0] for entry in videos}:
        if out == folder or out.startswith(f"{folder}/"):
            raise ValueError(f"{out} lies among the videos, whose names the films have: name another folder")
    usable = {video.stem: video for video in videos if video.head}
    rows = [{"stem": stem} for stem in usable]
    people: list[dict[str, Any]] = []
    segments: list[dict[str, Any]] = []
    if rows:
        given = dict(videos=usable, run=run, where=where, store=store, out=out)
        with Meter("overlay", float(len(rows)), "videos") as meter:
            for row in graph.people(rows, given):
                if row["reason"]:
                    say(f"{row['stem']}: {row['reason']}; not drawn")
                people += json.loads(row["people"])
                segments += json.loads(row["segments"])
                meter.advance(1.0)
    people.sort(key=lambda row: (row["video"], row["x"]))
    segments.sort(key=lambda row: (row["video"], row["person"], row["segment"]))
    for name, table, kind in (("people", people, schema.PEOPLE), ("segments", segments, schema.MOUTHS)):
        files.write(files.join(out, f"{name}.csv"), encode_csv(pa.Table.from_pylist(table, schema=kind)))
    for row in people[:MAX_LINES]:
        say(
            f"{row['video']} {row['person']}: seen in {row['seen']} of {row['frames']} frames, "
            f"{row['bridged']} bridged, {row['first_s']:.1f} to {row['last_s']:.1f} s, "
            f"mean lip area {row['lip_area']:.4f}, mouth open for {row['open_s']:.1f} s, "
            f"speaks in {row['kept']} of {row['segments']} segments"
        )
    say(f"overlay: {len(people)} people in {len(usable)} videos: {out}")
