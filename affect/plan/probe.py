"""Probes a video's container and stores the result."""

from typing import Any

from affect.corpus import video
from affect.corpus.video import MediaError
from affect.plan.clips import probe_table
from affect.storage import schema
from affect.storage.extracted import Extracted
from affect.storage.store import Store


def probe_video(row: dict[str, Any], store: Store) -> dict[str, Any]:
    """Stores a video's probe, or the reason why it is unusable; returns read errors, which are not stored."""
    try:
        found = Extracted(probe_table(video.probe(row["uri"], row["path"])))
    except MediaError as error:
        found = _failed(str(error))
    except Exception as error:  # any error: the other videos are still probed
        return {"key": row["key"], "error": f"cannot be read ({getattr(error, 'strerror', None) or error})"}
    store.put(row["key"], found)
    return {"key": row["key"], "error": ""}


def _failed(reason: str) -> Extracted:
    return Extracted(schema.VIDEO.empty_table(), "failed", reason)
