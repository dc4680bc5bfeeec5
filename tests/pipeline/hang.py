"""Attempts a clip whose work never ends. Arguments: folder of the micro corpus, store."""

import sys
import time
from dataclasses import replace
from typing import Any

from affect.modalities import MODALITIES
from affect.pipeline import extract_actor
from affect.plan.addresses import feature_addresses
from affect.plan.clips import load_probe
from affect.storage.attempts import Attempts
from affect.storage.store import Store
from tests.conftest import micro_run


class NoActor:
    """Replaces Ray's runtime context and the actor that counts seconds of video."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self) -> str:
        """The ID of no node."""
        return ""

    def remote(self, *_: object) -> None:
        """Counts nothing."""


def hangs(*_: object) -> None:
    """Replaces a clip's extraction by work that never ends."""
    time.sleep(3600)


root, place = sys.argv[1:]
run, store = micro_run(root), Store(place)
run = replace(run, audio=replace(run.audio, limit_s=0.5))
MODALITIES["audio"].extractor = lambda run, device: hangs  # type: ignore[assignment,method-assign,return-value]
extract_actor.device = lambda: "cpu"
extract_actor.ray.get_actor = lambda _: NoActor()  # type: ignore[assignment,return-value]
extract_actor.ray.get_runtime_context = lambda: NoActor()  # type: ignore[assignment]
key = next(key for key in sorted(store.keys("videos")) if store.outcome(key).rows)
probe = load_probe(store, key)
stage = extract_actor.ExtractActor("audio", run, store, feature_addresses(run), Attempts(store, "run"), "none")
row = {"uri": f"{root}/{probe.path}", "probe_key": key, "number": 0, "prompts": "neutral"}
done = stage({k: [v] for k, v in {**row, "missing": "audio", "length_s": 2.0, "again": False}.items()})
print(f"{done['audio_status'][0]}, {done['audio_reason'][0]}")
