"""From features of clips to one table per person: who is who, whose voice it is, which label belongs to which frame.

STORE/tracks/<slug>-<address:16>/frames.arrow      one row per frame
STORE/tracks/<slug>-<address:16>/segments.arrow    one row per segment
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from jaxtyping import Bool, Float
from numpy import ndarray

from affect import schema, timeline
from affect.audio.speaking import verdicts
from affect.config import Modality, Run, address
from affect.corpus import affwild2
from affect.corpus.affwild2 import Split
from affect.corpus.clip import Extracted
from affect.corpus.hints import Points
from affect.corpus.track import Segments, Track
from affect.corpus.video import Probe
from affect.face.mesh import FIRST
from affect.face.tracks import Faces, Person, at, choose, persons
from affect.pipeline import plan
from affect.pipeline.plan import Video
from affect.pipeline.progress import say
from affect.pipeline.store import Store, slug

MAX_MISSING_SHARE = 0.05
"""Share of label rows that the video may lack at its end before label and video cannot belong together."""


@dataclass(frozen=True)
class Features:
    """Everything extracted of one video.

    Args:
        probe: what the video holds.
        faces: every face.
        face_table: the same rows, all columns.
        persons: who is seen, from left to right.
        behavior: rows by prompt.
        audio: rows.
        reasons: why something is missing.
        failed: whether no clip of any modality could be used.
    """

    probe: Probe
    faces: Faces
    face_table: pa.Table
    persons: list[Person]
    behavior: pa.Table
    audio: pa.Table
    reasons: list[str]
    failed: bool


@dataclass(frozen=True)
class TrackRef:
    """Where a track's tables are.

    Args:
        name: of the track.
        split: train or development.
        video: stem of its video.
        person: main, left or right.
        key: folder in the store.
    """

    name: str
    split: Split
    video: str
    person: str
    key: str


def load_features(video: Video, run: Run, where: Mapping[Modality, str], store: Store) -> Features:
    """Read and join a video's clips.

    Raises:
        FileNotFoundError: a clip has not been extracted.
    """
    assert video.probe is not None
    tables, found = {}, []
    for modality in where:
        tables[modality], parts = load_table(video, run, where, modality, store)
        found += [(modality, part) for part in parts]
    reasons = sorted({f"{modality}: {part.reason}" for modality, part in found if part.reason})
    failed = all(part.status == "failed" for _, part in found)
    faces, table, people = who_is_who(tables["face"], run)
    return Features(video.probe, faces, table, people, tables["behavior"], tables["audio"], reasons, failed)


def who_is_who(table: pa.Table, run: Run) -> tuple[Faces, pa.Table, list[Person]]:
    """A video's faces, its rows in their order, and the persons they make."""
    table = table.sort_by([("frame", "ascending"), ("face", "ascending")])
    faces = faces_of(table)
    return faces, table, persons(faces, run.tracking)


def load_table(
    video: Video, run: Run, where: Mapping[Modality, str], modality: Modality, store: Store
) -> tuple[pa.Table, list[Extracted]]:
    """Read a modality's rows of all of a video's clips, and the clips.

    Raises:
        FileNotFoundError: a clip has not been extracted.
    """
    parts = [store.get(key) for key in plan.keys_of(video, run, where, modality)]
    return pa.concat_tables([part.table.replace_schema_metadata() for part in parts]), parts


def faces_of(table: pa.Table) -> Faces:
    """The faces of a video, from its rows of :data:`affect.schema.FACE` in order."""
    num = table.num_rows
    meshed = table["shape"].is_valid().to_numpy(zero_copy_only=False)
    proportions = np.full((num, len(FIRST)), np.nan)
    proportions[meshed] = matrix(table["shape"].drop_null(), len(FIRST))
    return Faces(
        frame=_array(table["frame"]),
        time_s=_array(table["time_s"]),
        box=matrix(table["box"], 4).astype(np.float64),
        score=_array(table["score"]).astype(np.float64),
        colors=matrix(table["colors"]).astype(np.float64),
        shape=proportions,
        thumbnail=matrix(table["thumbnail"]),
    )


def make_track(
    name: str,
    person: str,
    video: Video,
    features: Features,
    gold: Float[ndarray, "frames 2"] | None,
    run: Run,
    hints: Points = (),
) -> Track:
    """Arrays of one person.

    Args:
        name: of the track.
        person: whom to choose.
        video: the video.
        features: what was extracted of it.
        gold: annotations; its length is the track's. None for a new video, whose own length it then has.
        run: the run.
        hints: points that lie on the person, which then override ``person``.

    Raises:
        ValueError: the label has far more rows than the video has frames, or the hints lie on nobody.
    """
    probe = features.probe
    chosen = at(features.persons, hints) if hints else choose(features.persons, features.faces, person)
    if hints and chosen is None:
        raise ValueError(f"track {name}: its hints lie on nobody that is seen in {video.uri}")
    num = len(probe.time_s) if gold is None else len(gold)
    if num - len(probe.time_s) > max(2, MAX_MISSING_SHARE * num):
        raise ValueError(f"track {name}: {num} label rows, but {video.uri} has {len(probe.time_s)} frames")
    time_s = _extend(probe.time_s, num)
    face = _face(features, chosen, num)
    clock = timeline.Timestamps(probe.time_s)
    segments = _segments(features, person, clock, num, face["lip_area"], run)
    if gold is None:
        gold = np.full((num, 2), np.nan)
    return Track(name=name, video=video.stem, person=person, time_s=time_s, gold=gold, segments=segments, **face)


def _extend(time_s: Float[ndarray, " frames"], num: int) -> Float[ndarray, " num"]:
    """Cut surplus frames off, or go on at the mean rate for label rows past the video's end."""
    interval = 1 / timeline.Timestamps(time_s).fps
    more = time_s[-1] + interval * np.arange(1, max(0, num - len(time_s)) + 1)
    return np.concatenate([time_s, more])[:num]


def _face(features: Features, person: Person | None, num: int) -> dict[str, Any]:
    """The face's part of a track, of as many frames as it has; a frame without a face takes the nearest one's."""
    valid, bridged = np.zeros(num, dtype=bool), np.zeros(num, dtype=bool)
    box, lip_area = np.full((num, 4), np.nan), np.full(num, np.nan)
    embedding, affect = np.zeros((num, matrix(features.face_table["embedding"]).shape[1])), np.zeros((num, 2))
    if person is not None:
        inside = person.frame < num
        box[person.frame[inside]] = person.box[inside]
        bridged[person.frame[inside]] = person.bridged[inside]
        rows = person.rows[features.faces.frame[person.rows] < num]
        table, frames = features.face_table.take(rows), features.faces.frame[rows]
        valid[frames] = True
        lip_area[frames] = _array(table["lip_area"])
        if len(rows):
            nearest = np.searchsorted(frames, timeline.nearest_valid(valid))
            embedding = matrix(table["embedding"])[nearest]
            affect = np.stack([_array(table["valence"]), _array(table["arousal"])], axis=1)[nearest]
    return {
        "face_valid": valid,
        "bridged": bridged,
        "box": box,
        "face_embedding": embedding,
        "face_affect": affect,
        "lip_area": lip_area,
    }


def _segments(
    features: Features, person: str, clock: timeline.Timestamps, num: int, lip_area: Float[ndarray, " num"], run: Run
) -> Segments:
    ranges_s = timeline.segments(clock.duration_s, run.grid.segment_s, run.grid.hop_s)
    start_s, end_s = np.array(ranges_s).T
    ranges = np.minimum(timeline.frame_ranges(clock, ranges_s), num)
    edges = np.array([clock.block_edges(start, run.wavlm.blocks) for start in start_s])
    judged = verdicts(lip_area, clock.fps, ranges, run.wavlm.speaking)
    prompts = features.behavior["prompt"].to_pylist()
    prompt = person if person in prompts else "neutral"
    behavior = features.behavior.filter(pa.array([p == prompt for p in prompts], type=pa.bool_()))
    behavior_valid, multimodal, vision = _states(behavior, len(ranges))
    waveforms = [np.empty(0, dtype=np.int16) for _ in ranges]
    for row in range(features.audio.num_rows):
        waveforms[features.audio["segment"][row].as_py()] = features.audio["waveform"][row].values.to_numpy()
    audio_valid = np.array([len(wave) > 0 for wave in waveforms])
    return Segments(
        start_s=start_s,
        end_s=end_s,
        ranges=ranges,
        full=np.isclose(end_s - start_s, run.grid.segment_s),
        block_edges=np.minimum(edges, num),
        behavior_valid=behavior_valid,
        multimodal=multimodal,
        vision=vision,
        audio_valid=audio_valid,
        kept=np.array([v.kept for v in judged]) & audio_valid,
        verdict=[v.reason if valid else "no audio" for v, valid in zip(judged, audio_valid, strict=True)],
        waveforms=waveforms,
    )


def _states(behavior: pa.Table, num: int) -> tuple[ndarray, ndarray, ndarray]:
    index = _array(behavior["segment"])
    valid = np.zeros(num, dtype=bool)
    valid[index] = True
    states = []
    for name in ("multimodal", "vision"):
        values = matrix(behavior[name])
        full = np.zeros((num, values.shape[1]), dtype=np.float32)
        full[index] = values
        states.append(full)
    return valid, states[0], states[1]


def to_tables(track: Track) -> tuple[pa.Table, pa.Table]:
    """A track as its frame table and its segment table."""
    segments = track.segments
    gold = [pa.array(track.gold[:, i], pa.float32(), from_pandas=True) for i in (0, 1)]
    frames = {
        "frame": np.arange(track.num_frames),
        "time_s": track.time_s,
        "gold_valence": gold[0],
        "gold_arousal": gold[1],
        "face_valid": track.face_valid,
        "bridged": track.bridged,
        "box": rows_of(track.box, pa.float32(), ~np.isnan(track.box).any(axis=1)),
        "face_embedding": rows_of(track.face_embedding, pa.float32()),
        "face_valence": track.face_affect[:, 0],
        "face_arousal": track.face_affect[:, 1],
        "lip_area": pa.array(track.lip_area, pa.float32(), from_pandas=True),
    }
    columns = {
        "segment": np.arange(len(segments.ranges)),
        "start_s": segments.start_s,
        "end_s": segments.end_s,
        "first_frame": segments.ranges[:, 0],
        "end_frame": segments.ranges[:, 1],
        "full": segments.full,
        "block_edges": rows_of(segments.block_edges, pa.int32()),
        "behavior_valid": segments.behavior_valid,
        "multimodal": rows_of(segments.multimodal, pa.float16()),
        "vision": rows_of(segments.vision, pa.float16()),
        "audio_valid": segments.audio_valid,
        "kept": segments.kept,
        "verdict": segments.verdict,
        "waveform": segments.waveforms,
    }
    return pa.table(frames).cast(schema.TRACK_FRAMES), pa.table(columns).cast(schema.TRACK_SEGMENTS)


def load_track(store: Store, ref: TrackRef) -> Track:
    """Read a track that :func:`assemble` wrote; what is large stays on the disk and is mapped."""
    frames, segments = (store.get(f"{ref.key}/{name}.arrow").table for name in ("frames", "segments"))
    return Track(
        name=ref.name,
        video=ref.video,
        person=ref.person,
        time_s=_array(frames["time_s"]),
        gold=_nullable(frames, "gold_valence", "gold_arousal"),
        face_valid=_array(frames["face_valid"]),
        bridged=_array(frames["bridged"]),
        box=_boxes(frames["box"]),
        face_embedding=matrix(frames["face_embedding"]),
        face_affect=np.stack([_array(frames["face_valence"]), _array(frames["face_arousal"])], axis=1),
        lip_area=_nullable(frames, "lip_area")[:, 0],
        segments=Segments(
            start_s=_array(segments["start_s"]),
            end_s=_array(segments["end_s"]),
            ranges=np.stack([_array(segments["first_frame"]), _array(segments["end_frame"])], axis=1),
            full=_array(segments["full"]),
            block_edges=matrix(segments["block_edges"]),
            behavior_valid=_array(segments["behavior_valid"]),
            multimodal=matrix(segments["multimodal"]),
            vision=matrix(segments["vision"]),
            audio_valid=_array(segments["audio_valid"]),
            kept=_array(segments["kept"]),
            verdict=segments["verdict"].to_pylist(),
            waveforms=[value.values.to_numpy() for value in segments["waveform"]],
        ),
    )


def assemble(
    run: Run,
    videos: list[Video],
    labels: Mapping[Split, Mapping[str, ndarray]],
    store: Store,
    hints: Mapping[str, Points] | None = None,
) -> list[TrackRef]:
    """Write the tables of every labelled track that has none, in parallel.

    Args:
        run: the run.
        videos: probed and extracted.
        labels: annotations by split and track.
        store: where features are and tables go.
        hints: points on the person that a track means, by track.

    Returns:
        The tracks that can be used; the others are said with their reason.

    Raises:
        ValueError: there is none.
    """
    where = plan.addresses(run)
    names = affwild2.track_names(labels)
    tell_unknown(hints or {}, names)
    stems = {video.stem for video in videos}  # a broken video is still whose name it is
    usable = {video.stem: video for video in videos if video.probe}
    present = store.keys("tracks")
    refs: list[TrackRef] = []
    rows: list[dict[str, Any]] = []
    for split, tracks in labels.items():
        for name, gold in tracks.items():
            try:
                video = usable[affwild2.video_of(name, stems)]
                features = [(key, str(store.outcome(key))) for m in where for key in plan.keys_of(video, run, where, m)]
            except (affwild2.LabelError, KeyError, FileNotFoundError) as error:
                say(f"left out: track {name}: {_why(error)}")
                continue
            person = affwild2.person_of(name, video.stem, names, stems)
            mark = hashlib.sha256(np.ascontiguousarray(gold).tobytes()).hexdigest()
            told = list((hints or {}).get(name, ()))
            key = _key(name, address(schema.VERSION, person, features, run.wavlm.speaking, run.tracking, told, mark))
            ref = TrackRef(name, split, video.stem, person, key)
            refs.append(ref)
            if f"{ref.key}/segments.arrow" not in present:
                rows.append({"name": name, "person": person, "video": video.stem, "key": ref.key, "gold": gold})
    failed = {}
    if rows:
        say(f"assemble: {len(rows)} of {len(refs)} tracks to do")
        golds = {row["name"]: row.pop("gold") for row in rows}
        shared = {video.stem: video for video in usable.values() if video.stem in {row["video"] for row in rows}}
        done = ray.data.from_items(rows, override_num_blocks=min(len(rows), 256)).map(
            partial(_assemble, videos=shared, golds=golds, hints=hints or {}, run=run, where=where, store=store),
            num_cpus=0.5,
        )
        failed = {row["name"]: row["reason"] for row in done.iter_rows() if row["reason"]}
    for name, reason in failed.items():
        say(f"left out: track {name}: {reason}")
    refs = [ref for ref in refs if ref.name not in failed]
    if not refs:
        raise ValueError("no labelled track can be used; do the labels belong to these videos?")
    return refs


def tell_unknown(hints: Mapping[str, Points], names: Sequence[str]) -> None:
    """Say which hints are for nobody."""
    if unknown := sorted(set(hints) - set(names)):
        say(f"hints: there is no track {', '.join(unknown)}")


def _assemble(
    row: dict[str, Any],
    videos: Mapping[str, Video],
    golds: Mapping[str, ndarray],
    hints: Mapping[str, Points],
    run: Run,
    where: Mapping[Modality, str],
    store: Store,
) -> dict[str, Any]:
    video = videos[row["video"]]
    try:
        features = load_features(video, run, where, store)
        name = row["name"]
        track = make_track(name, row["person"], video, features, golds[name], run, hints.get(name, ()))
    except (ValueError, FileNotFoundError) as error:
        return {"name": row["name"], "reason": str(error)}
    frames, segments = to_tables(track)
    store.put(f"{row['key']}/frames.arrow", Extracted(frames))
    store.put(f"{row['key']}/segments.arrow", Extracted(segments))
    return {"name": row["name"], "reason": ""}


def _why(error: Exception) -> str:
    match error:
        case KeyError():
            return "its video cannot be used"
        case FileNotFoundError():
            return "its video has not been extracted with these settings and labels"
    return str(error)


def _key(name: str, mark: str) -> str:
    return f"tracks/{slug(name)}-{mark}"


def matrix(column: pa.ChunkedArray, width: int | None = None) -> ndarray:
    """A column of lists of one length as (rows, length): a view of one chunk, without a Python object per value."""
    values = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    flat = values.flatten().to_numpy(zero_copy_only=False)
    if width is None:
        width = len(flat) // len(values) if len(values) else 0
    return flat.reshape(len(values), width)


def rows_of(values: ndarray, kind: pa.DataType, valid: Bool[ndarray, " rows"] | None = None) -> pa.ListArray:
    """The reverse of :func:`matrix`; null where not valid."""
    width = values.shape[1]
    if valid is not None:
        values = values[valid]
    lengths = np.full(len(values), width) if valid is None else width * valid
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = pa.array(values.reshape(-1).astype(kind.to_pandas_dtype()), kind)
    return pa.ListArray.from_arrays(offsets, flat, mask=None if valid is None else pa.array(~valid))


def _boxes(column: pa.ChunkedArray) -> Float[ndarray, "frames 4"]:
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    box = np.full((len(column), 4), np.nan)
    box[valid] = matrix(column.drop_null(), 4)
    return box


def _array(column: pa.ChunkedArray) -> ndarray:
    return column.to_numpy()


def _nullable(table: pa.Table, *names: str) -> Float[ndarray, "rows columns"]:
    """Columns side by side in float64, null as NaN."""
    columns: Sequence[ndarray] = [table[name].cast(pa.float64()).to_numpy() for name in names]
    return np.stack(columns, axis=1)
