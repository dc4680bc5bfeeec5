"""Addresses: short hashes of everything that determines a result."""

import dataclasses
import hashlib
import json
from typing import Any

from affect.settings.base import unchanged
from affect.settings.extraction import Stage


def address(*parts: Any) -> str:  # noqa: ANN401 -- dataclasses, strings and plain JSON values
    """Hash of settings: 16 hex digits that differ whenever a setting that affects a result differs.

    Args:
        parts: dataclasses and JSON values. Not hashed: fields that subclasses inherit from :class:`Stage`, and fields
            marked :data:`affect.settings.base.ADDED` at their default.

    Returns:
        The first 16 digits of the sha256 of the parts as canonical JSON.
    """
    pool = {f.name for f in dataclasses.fields(Stage)}

    def plain(part: Any) -> Any:  # noqa: ANN401
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            skipped = pool if isinstance(part, Stage) else set()
            names = (f.name for f in dataclasses.fields(part) if f.name not in skipped and not unchanged(part, f))
            return {"": type(part).__name__, **{name: plain(getattr(part, name)) for name in names}}
        if isinstance(part, (tuple, list)):
            return [plain(p) for p in part]
        return part

    canonical = json.dumps([plain(p) for p in parts], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
