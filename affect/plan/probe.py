"""A video's probe: what the container says, kept in the store."""

from typing import Any

from affect.corpus import video
from affect.corpus.video import MediaError
from affect.plan.clips import probe_table
from affect.storage import schema
from affect.storage.extracted import Extracted
from affect.storage.store import Store


def probe_video(row: dict[str, Any], store: Store) -> dict[str, Any]:
    """Write a video's probe, or the reason why it has none; returns an error of reading it, which is not written."""
    try:
        found = Extracted(probe_table(video.probe(row["uri"], row["path"])))
    except MediaError as error:
        found = _nothing(str(error))
    except Exception as error:  # whatever it is, other videos are probed
        return {"key": row["key"], "error": f"cannot be read ({getattr(error, 'strerror', None) or error})"}
    store.put(row["key"], found)
    return {"key": row["key"], "error": ""}


def _nothing(reason: str) -> Extracted:
    return Extracted(schema.VIDEO.empty_table(), "failed", reason)
