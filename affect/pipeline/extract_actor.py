"""The actor that extracts one kind of features of clips, and the actor that counts finished seconds of video."""

import faulthandler
import sys
import time
import traceback
from functools import lru_cache
from typing import Any

import ray

from affect.corpus.clip import Clip
from affect.corpus.probe import Probe
from affect.corpus.video import MediaError
from affect.modalities import KINDS
from affect.pipeline.cluster import device
from affect.pipeline.metrics import Metrics
from affect.plan.clips import limit_s, load_probe, make_clip, with_prompts
from affect.settings.run import Run
from affect.storage import files
from affect.storage.attempts import MAX_ATTEMPTS, Attempts, Parts, given_up
from affect.storage.extracted import Extracted, Part
from affect.storage.state import State
from affect.storage.store import Outcome, Store, unit_key

KEEP_EVERY_S = 5.0
"""Seconds between two saves of an unfinished clip."""


class UnreadError(Exception):
    """A video that cannot be read now, although its file may be intact."""


class Tally:
    """An actor that counts finished seconds of video per kind of features, while clips are extracted."""

    def __init__(self) -> None:
        """Starts all counts at zero."""
        self._done: dict[str, float] = {}

    def add(self, kind: str, seconds: float) -> None:
        """Adds finished seconds of video."""
        self._done[kind] = self._done.get(kind, 0.0) + seconds

    def read(self) -> dict[str, float]:
        """Finished seconds of video by kind of features."""
        return self._done


class ExtractActor:
    """An actor that extracts one kind of features of clips.

    Args:
        kind: name of the kind.
        run: the run.
        store: store of the features.
        where: addresses by kind.
        attempts: counter of attempts at clips.
        tally: name of the :class:`Tally`. A handle would make Ray print a warning, see
            :mod:`affect.pipeline.streams`.
    """

    def __init__(
        self, kind: str, run: Run, store: Store, where: dict[str, str], attempts: Attempts, tally: str
    ) -> None:
        """Loads the model."""
        self._kind, self._run, self._store, self._where = KINDS[kind], run, store, where
        self._attempts, self._tally, self._parts = attempts, ray.get_actor(tally), Parts(store)
        self._metrics = Metrics(kind)
        self._stage = self._kind.stage(run)
        self._extract = self._kind.extractor(run, device())
        if torch := sys.modules.get("torch"):  # audio does not need torch; without it, it starts 2 s earlier
            torch.set_num_threads(max(1, int(self._stage.num_cpus)))
        self._probe = lru_cache(maxsize=8)(lambda key: load_probe(store, key))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Extracts one clip; returns its row with the outcome.

        Raises:
            OSError: the store is read-only, full or forbidden, because every further clip would fail too.
        """
        row = {name: values[0] for name, values in batch.items()}
        outcome, seconds, node, name = Outcome("ok", "", 0), 0.0, "", self._kind.name
        if name in row["missing"].split(","):
            start = time.monotonic()
            self._counted_s, self._length_s = 0.0, row["length_s"]
            outcome = self._clip(row)
            seconds = time.monotonic() - start
            self._count(1.0)
            self._metrics.finished(outcome.status, seconds)
            node = ray.get_runtime_context().get_node_id()
        added: dict[str, Any] = {f"{name}_status": outcome.status, f"{name}_reason": outcome.reason}
        added |= {f"{name}_rows": outcome.rows, f"{name}_seconds": seconds, f"{name}_node": node}
        return {key: [value] for key, value in (row | added).items()}

    def _count(self, share: float) -> None:
        """Adds the seconds of the clip that were finished since the last call to the tally."""
        done_s = share * self._length_s
        self._tally.add.remote(self._kind.name, done_s - self._counted_s)
        self._metrics.progress(done_s - self._counted_s)
        self._counted_s = done_s

    def _clip(self, row: dict[str, Any]) -> Outcome:
        """Extracts a clip and writes its object; a failure of the clip is an object, too."""
        try:
            probe: Probe = self._probe(row["probe_key"])
            prompts, number, name = tuple(row["prompts"].split(",")), row["number"], self._kind.name
            mark = with_prompts(name, self._where[name], prompts)
            key = unit_key(name, mark, probe.path, probe.fingerprint, number)
            if self._store.has(key):  # written by another job on the store, or a stored failure
                known = State.of(self._store, key).outcome
                if known.status != "failed" or not row["again"]:
                    return known
            most_s = limit_s(self._stage, row["length_s"])
            before = self._attempts.begin(key)
            if before:
                self._metrics.retry()
            if before >= MAX_ATTEMPTS:
                extracted = self._failed(given_up(before, most_s))
            else:
                clip = make_clip(row["uri"], prompts, probe, number, self._run)
                begun = self._parts.load(key, self._kind.rows_of(self._run), attempted=before > 0)
                extracted = self._try(clip, begun, key, most_s)
            outcome = self._store.put(key, extracted, replace=row["again"] and extracted.status != "failed")
            self._attempts.end(key)
            self._parts.end(key)
            return outcome
        except Exception as error:  # not the clip's fault: it stays missing, others go on
            if files.is_unwritable(error):
                raise
            traceback.print_exc()
            cause = error.__cause__ if isinstance(error, UnreadError) else error
            return Outcome("error", f"{type(cause).__name__}: {cause}", 0)

    def _try(self, clip: Clip, begun: Part | None, key: str, limit_s: float) -> Extracted:
        """Extracts a clip; after ``limit_s`` seconds the process prints its stack and exits."""
        kept_at = time.monotonic()

        def save(part: Part) -> None:
            """Counts an unfinished part, and saves it every few seconds."""
            nonlocal kept_at
            self._count(part.share)
            if time.monotonic() - kept_at >= KEEP_EVERY_S:
                self._parts.keep(key, part)
                kept_at = time.monotonic()

        faulthandler.dump_traceback_later(limit_s, exit=True)
        try:
            return self._extract(clip, begun, save)
        except MediaError as error:
            return self._failed(str(error))
        except OSError as error:  # of reading the video, not of the store
            raise UnreadError(str(error)) from error
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _failed(self, reason: str) -> Extracted:
        """Object of a clip that failed."""
        return Extracted(self._kind.rows.empty_table(), "failed", reason)
