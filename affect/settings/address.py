"""Addresses: a short hash of everything that decides a result."""

import dataclasses
import hashlib
import json
from typing import Any

from affect.settings.extraction import Stage


def address(*parts: Any) -> str:  # noqa: ANN401 -- dataclasses, strings and plain JSON values
    """Sixteen hex digits that change whenever a setting changes that could change a number.

    Args:
        parts: dataclasses and JSON values. The fields of :class:`Stage` are left out of its subclasses.

    Returns:
        The first 16 digits of the sha256 of the parts as canonical JSON.
    """
    pool = {f.name for f in dataclasses.fields(Stage)}

    def plain(part: Any) -> Any:  # noqa: ANN401
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            skipped = pool if isinstance(part, Stage) else set()
            names = (f.name for f in dataclasses.fields(part) if f.name not in skipped)
            return {"": type(part).__name__, **{name: plain(getattr(part, name)) for name in names}}
        if isinstance(part, (tuple, list)):
            return [plain(p) for p in part]
        return part

    canonical = json.dumps([plain(p) for p in parts], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
