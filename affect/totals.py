"""Amounts that this process counts in passing, for metrics: seconds of waiting, bytes read."""

import threading
from collections import defaultdict

DECODE_WAIT_S, READ_BYTES = "decode_wait_s", "read_bytes"
"""Seconds that a model waited for decoded frames; bytes of videos that were read from a bucket."""
_counted: dict[str, float] = defaultdict(float)
_lock = threading.Lock()


def count(name: str, amount: float) -> None:
    """Adds an amount, from any thread."""
    with _lock:
        _counted[name] += amount


def take() -> dict[str, float]:
    """Amounts since the last call."""
    with _lock:
        taken = dict(_counted)
        _counted.clear()
    return taken
