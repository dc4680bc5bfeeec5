"""Estimated against measured time, on the demo."""

import tempfile
import time
from dataclasses import replace

from .demo import prepared_demo


def plan() -> None:
    """Estimates of extraction, training and prediction, each from an earlier run of another part of the work."""
    from affect.console.forecast import forecast_training
    from affect.corpus import affwild2
    from affect.pipeline import forecast
    from affect.pipeline.assemble import assemble
    from affect.pipeline.extract import extract
    from affect.pipeline.predict import predict
    from affect.pipeline.report import films, pages
    from affect.pipeline.train import train
    from affect.storage.store import Store
    from affect.trained.models import load_models

    run, places = prepared_demo()
    labels = affwild2.read_splits(places.labels)
    tracks = affwild2.track_names(labels)
    with tempfile.TemporaryDirectory() as folder:
        store, runs = Store(f"{folder}/store"), f"{folder}/runs"
        extract(run, f"{places.videos}/video0[1-5].mp4", store, tracks=tracks)
        found, _ = forecast.extraction(run, places.videos, store, tracks)
        start = time.monotonic()
        videos = extract(run, places.videos, store, tracks=tracks).videos
        _say("extract", found.seconds, time.monotonic() - start)
        refs = assemble(run, videos, labels, store)
        train(run, refs, store, runs)
        other = replace(
            run,
            face_transformer=replace(run.face_transformer, fit=replace(run.face_transformer.fit, seed=1)),
            mamba=replace(run.mamba, fit=replace(run.mamba.fit, seed=1)),
            wavlm=replace(run.wavlm, fit=replace(run.wavlm.fit, seed=1)),
        )
        found, probed = forecast.extraction(other, places.videos, store, tracks)
        found = forecast_training(found, other, probed, labels, runs, 0)
        start = time.monotonic()
        train(other, refs, store, runs)
        _say("train", found.seconds, time.monotonic() - start)
        models, out = load_models(other, runs), f"{folder}/out"
        for part, measured in (("video1[3-4].mp4", False), ("video1[5-7].mp4", True)):
            where = f"{places.new_videos}/{part}"
            new = extract(other, where, store).videos
            found, probed = forecast.extraction(other, where, store, [])
            found = forecast.prediction(found, other, probed, models, store, report=True)
            start = time.monotonic()
            predict(other, new, models, store, out)
            films(other, new, store, out, {})
            took = time.monotonic() - start
            pages(out)
            if measured:
                _say("predict", found.seconds, took)


def _say(job: str, planned: float | None, took: float) -> None:
    assert planned is not None
    print(f"plan: {job} estimated {planned:.1f} s, took {took:.1f} s, ratio {took / planned:.2f}", flush=True)
