"""Metrics of the stages, which every node's Ray exports for Prometheus; the dashboard is ``cluster/grafana.json``.

Source: https://docs.ray.io/en/latest/ray-observability/user-guides/add-app-metrics.html
"""

import sys

from ray.util.metrics import Counter, Gauge

from affect import totals

NAMES = {
    "affect_finished": "Finished clips (of extraction), videos (of prediction) and tracks (of evaluation), by status.",
    "affect_video_seconds": "Finished seconds of video.",
    "affect_work_seconds": "Seconds that actors worked.",
    "affect_decode_wait_seconds": "Seconds that models waited for decoded frames.",
    "affect_read_bytes": "Bytes of videos read from a bucket.",
    "affect_retries": "Attempts after a process that died or was stopped.",
    "affect_gpu_memory_bytes": "Memory of a GPU that an actor holds.",
}
"""Descriptions by name. Ray puts ``ray_`` before a name and, except for the memory's, ``_total`` behind it."""


class Metrics:
    """Metrics of one actor.

    Args:
        stage: its stage, which tags them: a kind of features, ``predict``, ``evaluate`` or ``trunk``.
    """

    def __init__(self, stage: str) -> None:
        """Registers the metrics."""
        self._stage = {"stage": stage}
        self._finished, self._seconds, self._work, self._wait, self._read, self._retries = (
            Counter(name, NAMES[name], ("stage", "status") if name == "affect_finished" else ("stage",))
            for name in list(NAMES)[:-1]
        )
        self._memory = Gauge("affect_gpu_memory_bytes", NAMES["affect_gpu_memory_bytes"], ("stage",))

    def progress(self, video_s: float) -> None:
        """Counts finished seconds of video, and what the process counted in passing."""
        counted = totals.take()
        for counter, amount in (
            (self._seconds, video_s),
            (self._wait, counted.get(totals.DECODE_WAIT_S, 0.0)),
            (self._read, counted.get(totals.READ_BYTES, 0.0)),
        ):
            if amount > 0:
                counter.inc(amount, self._stage)
        torch = sys.modules.get("torch")
        if torch and torch.cuda.is_available() and torch.cuda.is_initialized():
            self._memory.set(torch.cuda.memory_reserved(), self._stage)

    def finished(self, status: str, work_s: float) -> None:
        """Counts a finished item and the seconds of work on it."""
        self._finished.inc(1.0, {**self._stage, "status": status})
        if work_s > 0:
            self._work.inc(work_s, self._stage)

    def retry(self) -> None:
        """Counts an attempt at something whose last attempt did not end."""
        self._retries.inc(1.0, self._stage)
