"""New videos to valence and arousal for every frame and person.

OUT/run.json        the models, and the training mean: it stands for people that nothing is known of
"""

import dataclasses
import json
import os
import platform
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from typing import Any, cast, get_args

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from numpy import ndarray

from affect.corpus import affwild2
from affect.corpus.hints import Points
from affect.corpus.track import Series
from affect.face.tracks import names
from affect.fusion.task import FusionTask
from affect.learning import batches
from affect.learning.task import TrackTask
from affect.pipeline.assemble import tell_unknown
from affect.pipeline.cluster import actors, device
from affect.pipeline.graph import MODEL_BYTES, pool
from affect.plan.addresses import feature_addresses
from affect.plan.clips import Video, keys_of
from affect.progress import Meter, say
from affect.settings.address import address
from affect.settings.names import Modality, People, System
from affect.settings.run import Run
from affect.storage import files, schema, speed
from affect.storage.store import Store, encode, encode_csv
from affect.tracks.assembly import face_boxes, make_track, person_of
from affect.tracks.features import Features, load_features
from affect.trained.embedded import embed
from affect.trained.models import Model, nameless
from affect.trained.predictions import _METADATA, SUMMARY, UNANSWERED, earlier_outcomes, known_outcome, prediction_table

MAX_NAME_BYTES = 200
"""Of a video's name without its suffix: tables, pages and films are called so, and file systems allow 255."""


class Predictor:
    """An actor that predicts whole videos.

    Args:
        run: the run.
        where: addresses of the features, by modality.
        models: from :func:`load_models`.
        store: features.
        out: where tables go.
        people: whom to predict of a video whose row names no tracks.
        hints: points on the person that a track means, by track.
    """

    def __init__(
        self,
        run: Run,
        where: Mapping[Modality, str],
        models: Mapping[System, Model],
        store: Store,
        out: str,
        people: People,
        hints: Mapping[str, Points],
    ) -> None:
        """Load all models."""
        torch.set_num_threads(1)
        self._whom, self._hints = people, hints
        self._run, self._store, self._out = run, store, out
        self._device, self._where = torch.device(device()), where
        self._models = {system: model.address for system, model in models.items()}
        self._tasks: dict[System, TrackTask] = {system: model.task() for system, model in models.items()}
        self._networks = {system: model.network(self._device) for system, model in models.items()}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Predict one video; its row is the outcome.

        Args:
            batch: ``video``, and ``tracks``, JSON: name and person of each that is to be predicted, null for those who
                are seen.
        """
        video: Video = batch["video"][0]
        start = time.monotonic()
        row = {"video": video.stem, "status": "failed", "people": 0, "frames": 0, "duration_s": 0.0}
        row |= {"reason": video.reason, "new_s": 0.0, "took_s": 0.0}
        if video.stem == SUMMARY:
            row["reason"] = f"{SUMMARY}.csv says how videos ended: give the video another name"
        elif len(os.fsencode(video.stem)) > MAX_NAME_BYTES:
            row["reason"] = f"its name has more than {MAX_NAME_BYTES} bytes, too many for a table's: rename it"
        elif video.head is not None:
            row |= {"duration_s": video.head.duration_s, **self._predict(video, json.loads(batch["tracks"][0]))}
            row["took_s"] = time.monotonic() - start if row["new_s"] else 0.0
        if row["status"] == "failed" and video.stem != SUMMARY:  # what an earlier run said of it holds no more
            for suffix in ("parquet", "csv"):
                files.delete(files.join(self._out, f"{video.stem}.{suffix}"))
        return {name: [value] for name, value in row.items()}

    def _predict(self, video: Video, tracks: list[list[str]] | None) -> dict[str, Any]:
        path = files.join(self._out, f"{video.stem}.parquet")
        try:
            mark = self._mark(video, tracks)
            if known := known_outcome(path, mark):
                return known
            features = load_features(video, self._run, self._where, self._store)
        except FileNotFoundError as error:
            return {"reason": f"not extracted: {error}"}
        except ValueError as error:  # an object is damaged: the other videos' are not
            return {"reason": str(error)}
        people = self._seen(video, features) if tracks is None else tracks
        try:
            tables = [self._person(video, features, name, person) for name, person in people]
        except ValueError as error:  # hints that lie on nobody
            return {"reason": str(error)}
        table = pa.concat_tables(tables) if tables else schema.PREDICTIONS.empty_table()
        nobody = "no person: no face is seen long enough" if self._whom == "all" else f"nobody is {self._whom}"
        reasons = features.reasons if people else [nobody, *features.reasons]
        if unanswered := sum(reason.endswith(UNANSWERED) for reason in table["reason"].to_pylist()):
            reasons = [*reasons, f"{unanswered} frames: {UNANSWERED}"]
        status = "failed" if features.failed else "degraded" if reasons else "ok"
        row = {"status": status, "people": len(people), "frames": table.num_rows, "reason": "; ".join(reasons)}
        if features.failed:
            return row
        files.write(files.join(self._out, f"{video.stem}.csv"), encode_csv(table))
        note = json.dumps({"mark": mark, "outcome": row}).encode()
        files.write(path, encode(table.replace_schema_metadata({_METADATA: note})))  # last: it says that all is there
        return {**row, "new_s": features.probe.clock.duration_s}

    def _mark(self, video: Video, tracks: list[list[str]] | None) -> str:
        """Address of everything that decides a video's table.

        Raises:
            FileNotFoundError: something has not been extracted.
        """
        assert video.head is not None
        run = self._run
        keys = [key for kind in self._where for key in keys_of(video, run, self._where, kind)]
        units = [(key, str(self._store.outcome(key))) for key in keys]
        points = sorted((name, [tuple(point) for point in own]) for name, own in self._hints.items())
        asked = [self._whom, tracks, points]
        return address(
            schema.VERSION,
            schema.MODEL_VERSION,
            schema.PREDICTIONS.names,
            self._models,
            video.stem,
            units,
            run.tracking,
            run.wavlm.speaking,
            asked,
        )

    def _seen(self, video: Video, features: Features) -> list[list[str]]:
        """Tracks of the people who are seen, and whom each means.

        Without faces nobody knows who is seen: then it is whom the behaviour was asked about.
        """
        asked = [prompt for prompt in video.prompts if prompt != "neutral"]
        seen = names(features.persons) if "face" in self._run.extracted else asked or ["main"]
        if self._whom == "main":
            seen = ["main"] if seen else []
        elif self._whom != "all":
            seen = [person for person in seen if person == self._whom]
        return [[video.stem if person == "main" else f"{video.stem}_{person}", person] for person in seen]

    def _person(self, video: Video, features: Features, name: str, person: str) -> pa.Table:
        track = make_track(name, person, video, features, None, self._run, self._hints.get(name, ()))
        answers: dict[System, ndarray] = {}
        series: dict[Modality, Series] = {}
        for system, task in self._tasks.items():
            if self._run.reads(system):
                track = replace(track, series=series)
            outputs = batches.run(task, self._networks[system], track, self._device)
            if isinstance(task, FusionTask):
                valid = task.seen(track)
            else:
                series[cast(Modality, system)], blocks = embed(task, track, outputs)
                track, valid = replace(track, blocks=blocks or track.blocks), series[cast(Modality, system)].valid
            nothing = np.full((track.num_frames, 2), np.nan)  # of one who was never seen
            answers[system] = task.predict(track, outputs) if valid.any() else nothing
        track = replace(track, series=series)
        fusion = task if isinstance(task, FusionTask) else None
        trust = fusion.trust(track, outputs) if fusion and outputs.windows else {}
        evidence = fusion.evidence if fusion else (cast(Modality, system),)
        chosen = person_of(features, person, self._run, self._hints.get(name, ()))
        boxes = face_boxes(features, chosen, track.num_frames)
        return prediction_table(track, answers, evidence, task.spread(track, outputs), trust, boxes)


def predict(
    run: Run,
    videos: list[Video],
    models: dict[System, Model],
    store: Store,
    out: str,
    *,
    people: People = "all",
    tracks: list[str] | None = None,
    hints: Mapping[str, Points] | None = None,
) -> list[dict[str, Any]]:
    """Predict every extracted video that has not been predicted from the same before.

    Args:
        run: the run.
        videos: probed and extracted.
        models: from :func:`load_models`.
        store: features.
        out: where tables go.
        people: whom to predict, unless tracks are given.
        tracks: names of the tracks to predict, as a template has them.
        hints: points on the person that a track means, by track.

    Returns:
        One row per video, sorted by name; ``videos.csv`` also has those that the same models predicted before.
    """
    if tracks is not None:
        tell_unknown(hints or {}, tracks)
    if people not in get_args(People):
        raise ValueError(f"people {people!r} are none of {', '.join(get_args(People))}")
    if tracks is not None and people != "all":
        raise ValueError(f"--people {people} and --template both say whom to predict; give one of them")
    by_stem = {video.stem: video for video in videos}
    asked = None if tracks is None else _asked(tracks, by_stem)
    todo = [{"video": video, "tracks": json.dumps(asked and asked[stem])} for stem, video in by_stem.items()]
    own = {system: nameless(model) for system, model in models.items()}
    given = (run, feature_addresses(run), own, store, files.absolute(out), people, hints or {})
    rows: list[dict[str, Any]] = []
    start = time.monotonic()
    with Meter("predict", float(len(by_stem)), "videos") as meter:
        for row in pool(todo, Predictor, given, run.inference):
            rows.append(row)
            meter.advance(1.0)
    length, work_s = (sum(row.pop(name) for row in rows) for name in ("new_s", "took_s"))
    start_s = max(0.0, time.monotonic() - start - work_s / actors(run.inference, len(by_stem), MODEL_BYTES))
    mark = address({system: model.address for system, model in models.items()})
    speed.note(store.uri, "predict", mark, length, work_s, start_s)
    rows.sort(key=lambda row: row["video"])
    out, addresses = files.absolute(out), {system: model.address for system, model in models.items()}
    others = [row for row in earlier_outcomes(out, addresses) if row["video"] not in by_stem]
    everything = sorted(others + rows, key=lambda row: row["video"])
    summary = encode_csv(pa.Table.from_pylist(everything, schema=schema.OUTCOMES))
    files.write(files.join(out, f"{SUMMARY}.csv"), summary)
    note = {
        "recipe": run.name,
        "models": addresses,
        "modalities": {system: model.modalities for system, model in models.items()},
        "training_mean": models[run.systems[-1]].training_mean,
        "made_with": _made_with(models, store),
        "settings": dataclasses.asdict(run),
    }
    files.write(files.join(out, "run.json"), json.dumps(note, indent=1).encode())
    for row in rows:
        if row["reason"]:
            say(f"{row['video']}: {row['status']}, {row['people']} people, {row['reason']}")
    return rows


def _asked(tracks: Sequence[str], stems: Collection[str]) -> dict[str, list[tuple[str, str]]]:
    """Tracks that a template names and whom each means, by the stem of their video."""
    found: dict[str, list[tuple[str, str]]] = {stem: [] for stem in stems}
    for track in tracks:
        stem = affwild2.video_of(track, stems)
        found[stem].append((track, affwild2.person_of(track, stem, tracks, stems)))
    return found


def _made_with(models: Mapping[System, Model], store: Store) -> dict[str, str]:
    """Versions, models, features and how fast they were extracted, to be read."""
    facts = {"python": platform.python_version()}
    facts |= {name: metadata.version(name) for name in ("affect", "torch", "transformers", "ray", "mediapipe", "av")}
    facts |= {f"{system} model": model.uri for system, model in models.items()}
    features = {m: mark for model in models.values() for m, mark in model.features.items()}
    facts |= {f"{m} features": f"{store.uri}/{m}/{mark}" for m, mark in features.items()}
    for m, mark in features.items():
        if known := speed.measured(store.uri, m, mark):
            facts[f"{m} extraction"] = f"{known.work_s / known.amount:.2f} s of an actor per second of video"
    return facts
