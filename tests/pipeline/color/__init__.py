"""A fourth modality for tests: the mean colour of the picture every half second."""


def register() -> None:
    """The one line that adds it; each process of the test runs it."""
    from affect.modalities import MODALITIES
    from tests.pipeline.color.modality import Color

    MODALITIES["color"] = Color()
