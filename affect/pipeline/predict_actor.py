"""The actor that predicts whole videos: every system on every person."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from numpy import ndarray

from affect.corpus.hints import Points
from affect.corpus.track import Series
from affect.face.tracks import person_names
from affect.fusion.task import FusionTask
from affect.learning import batches
from affect.learning.task import TrackTask
from affect.pipeline.cluster import device
from affect.plan.clips import Video, keys_of
from affect.settings.address import address
from affect.settings.names import People
from affect.settings.run import Run
from affect.storage import files, schema
from affect.storage.store import Store, encode_csv
from affect.tracks.assembly import face_boxes, make_track, person_of
from affect.tracks.features import Features, load_features
from affect.trained.embedded import embed
from affect.trained.models import Model
from affect.trained.predictions import (
    SUMMARY,
    UNANSWERED,
    encode_predictions,
    known_outcome,
    prediction_table,
    predictions_schema,
)

MAX_NAME_BYTES = 200
"""Most bytes of a video's name without suffix: its table, page and film have it, and file systems allow 255."""


class PredictActor:
    """An actor that predicts whole videos.

    Args:
        run: the run.
        where: addresses of the features, by modality.
        models: from :func:`affect.trained.models.load_models`.
        store: store of the features.
        out: folder of the tables.
        people: people to predict in videos whose row names no tracks.
        hints: points on the person that a track means, by track.
    """

    def __init__(
        self,
        run: Run,
        where: Mapping[str, str],
        models: Mapping[str, Model],
        store: Store,
        out: str,
        people: People,
        hints: Mapping[str, Points],
    ) -> None:
        """Loads all models."""
        torch.set_num_threads(1)
        self._whom, self._hints = people, hints
        self._run, self._store, self._out = run, store, out
        self._device, self._where = torch.device(device()), where
        self._models = {system: model.address for system, model in models.items()}
        self._tasks: dict[str, TrackTask] = {system: model.task() for system, model in models.items()}
        self._networks = {system: model.network(self._device) for system, model in models.items()}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Predicts one video; returns its outcome as a row.

        Args:
            batch: ``video``, and ``tracks`` as JSON: name and person of each track to predict, or null for the people
                in the video.
        """
        video: Video = batch["video"][0]
        start, row = time.monotonic(), _row(video, video.reason)
        if video.stem == SUMMARY:
            row["reason"] = f"{SUMMARY}.csv says how videos ended: give the video another name"
        elif len(os.fsencode(video.stem)) > MAX_NAME_BYTES:
            row["reason"] = f"its name has more than {MAX_NAME_BYTES} bytes, too many for a table's: rename it"
        elif video.head is not None:
            row |= {"duration_s": video.head.duration_s, **self._predict(video, json.loads(batch["tracks"][0]))}
            row["took_s"] = time.monotonic() - start if row["new_s"] else 0.0
        if row["status"] == "failed":
            self._clear(video)
        return {name: [value] for name, value in row.items()}

    def failed(self, batch: dict[str, Any], reason: str) -> dict[str, Any]:
        """Outcome of a video whose prediction raised an error, or whose process died (:mod:`affect.pipeline.guard`)."""
        video: Video = batch["video"][0]
        self._clear(video)
        row = _row(video, reason) | {"duration_s": video.head.duration_s if video.head else 0.0}
        return {name: [value] for name, value in row.items()}

    def _clear(self, video: Video) -> None:
        """Deletes the tables of earlier predictions, which are out of date."""
        for suffix in ("parquet", "csv", "eaf") if video.stem != SUMMARY else ():
            files.delete(files.join(self._out, f"{video.stem}.{suffix}"))

    def _predict(self, video: Video, tracks: list[list[str]] | None) -> dict[str, Any]:
        """Writes the tables of a video, unless they exist; returns the changed fields of its outcome."""
        path = files.join(self._out, f"{video.stem}.parquet")
        try:
            mark = self._mark(video, tracks)
            if known := known_outcome(path, mark):
                return known
            features = load_features(video, self._run, self._where, self._store)
        except FileNotFoundError as error:
            return {"reason": f"not extracted: {error}"}
        except ValueError as error:  # a damaged object; other videos go on
            return {"reason": str(error)}
        people = self._seen(video, features) if tracks is None else tracks
        try:
            tables = [self._person(video, features, name, person) for name, person in people]
        except ValueError as error:  # hints that are on nobody
            return {"reason": str(error)}
        table = pa.concat_tables(tables) if tables else predictions_schema().empty_table()
        nobody = "no person: no face is seen long enough" if self._whom == "all" else f"nobody is {self._whom}"
        reasons = features.reasons if people else [nobody, *features.reasons]
        if unanswered := sum(reason.endswith(UNANSWERED) for reason in table["reason"].to_pylist()):
            reasons = [*reasons, f"{unanswered} frames: {UNANSWERED}"]
        status = "failed" if features.failed else "degraded" if reasons else "ok"
        row = {"status": status, "people": len(people), "frames": table.num_rows, "reason": "; ".join(reasons)}
        if features.failed:
            return row
        files.delete(files.join(self._out, f"{video.stem}.eaf"))  # of earlier predictions
        files.write(files.join(self._out, f"{video.stem}.csv"), encode_csv(table))
        files.write(path, encode_predictions(table, mark, row))  # last: it marks the video as finished
        return {**row, "new_s": features.probe.clock.duration_s}

    def _mark(self, video: Video, tracks: list[list[str]] | None) -> str:
        """Address of all inputs of a video's table.

        Raises:
            FileNotFoundError: something has not been extracted.
        """
        assert video.head is not None
        run = self._run
        keys = [key for kind in self._where for key in keys_of(video, run, self._where, kind)]
        units = [(key, str(self._store.outcome(key))) for key in keys]
        points = sorted((name, [tuple(point) for point in given]) for name, given in self._hints.items())
        people = [self._whom, tracks, points]
        return address(
            schema.VERSION,
            schema.MODEL_VERSION,
            predictions_schema().names,
            self._models,
            video.stem,
            units,
            run.tracking,
            run.wavlm.speaking,
            people,
        )

    def _seen(self, video: Video, features: Features) -> list[list[str]]:
        """Track name and person of the people in a video.

        Without face features these are the people of the behaviour prompts.
        """
        prompts = [prompt for prompt in video.prompts if prompt != "neutral"]
        seen = person_names(features.persons) if "face" in self._run.extracted else prompts or ["main"]
        if self._whom == "main":
            seen = ["main"] if seen else []
        elif self._whom != "all":
            seen = [person for person in seen if person == self._whom]
        return [[video.stem if person == "main" else f"{video.stem}_{person}", person] for person in seen]

    def _person(self, video: Video, features: Features, name: str, person: str) -> pa.Table:
        """Predictions of one person by every system."""
        track = make_track(name, person, video, features, None, self._run, self._hints.get(name, ()))
        answers: dict[str, ndarray] = {}
        series: dict[str, Series] = {}
        for system, task in self._tasks.items():
            read = task.prepare(replace(track, series=series) if self._run.reads(system) else track)
            outputs = batches.run(task, self._networks[system], read, self._device)
            if isinstance(task, FusionTask):
                valid = task.seen(read)
            else:
                series[system], blocks = embed(task, read, outputs)
                track, valid = replace(track, blocks=blocks or track.blocks), series[system].valid
            nothing = np.full((track.num_frames, 2), np.nan)  # no evidence of the person
            answers[system] = task.predict(read, outputs) if valid.any() else nothing
        track = replace(track, series=read.series if self._run.rates(system) else series)
        fusion = task if isinstance(task, FusionTask) else None
        trust = fusion.trust(track, outputs) if fusion and outputs.windows else {}
        evidence = fusion.evidence if fusion else (system,)
        chosen = person_of(features, person, self._run, self._hints.get(name, ()))
        boxes = face_boxes(features, chosen, track.num_frames)
        return prediction_table(track, answers, evidence, task.spread(track, outputs), trust, boxes)


def _row(video: Video, reason: str) -> dict[str, Any]:
    """Row of a video that failed."""
    row = {"video": video.stem, "status": "failed", "people": 0, "frames": 0, "duration_s": 0.0}
    return row | {"reason": reason, "new_s": 0.0, "took_s": 0.0}
