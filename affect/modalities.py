"""Loads what turns clips into rows."""

from collections.abc import Callable

from affect.corpus.clip import Clip
from affect.settings.names import Kind
from affect.settings.run import Run
from affect.storage.extracted import Extracted, Part, Save

Extractor = Callable[[Clip, Part | None, Save], Extracted]
"""Turns a clip into rows, going on from a part of it, and says how far it is."""


def extractor(kind: Kind, run: Run, on: str) -> Extractor:
    """Load what turns clips into rows of a kind, on a device: ``cuda`` or ``cpu``."""
    if kind == "face":
        from affect.face.clip import FaceClip

        return FaceClip(run.face, on)
    if kind == "behavior":
        from affect.behavior.clip import BehaviorClip

        return BehaviorClip(run.behavior, on)
    if kind == "description":
        from affect.behavior.describe import DescriptionClip

        return DescriptionClip(run.behavior, run.description, on)
    from affect.audio.clip import AudioClip

    return AudioClip(run.audio)
