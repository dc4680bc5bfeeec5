"""The modalities, one line each; everything that goes through modalities goes through this list.

A further modality is a folder beside ``affect/face`` and a line here: see "Add a modality" in affect/README.md.
"""

from collections import ChainMap
from collections.abc import Mapping
from typing import cast

from affect.audio.modality import Audio
from affect.behavior.modality import Behavior, Description
from affect.face.modality import Face
from affect.fusion.systems import Dcmmoe, Raav
from affect.modality import Kind, Modality, System
from affect.settings.recipes import RECIPES, Recipe

MODALITIES: dict[str, Modality] = {
    "face": Face(),
    "behavior": Behavior(),
    "audio": Audio(),
}
"""By name, in the order in which they are assembled, trained and shown: what one needs stands before it."""

FUSIONS: dict[str, System] = {"dcmmoe": Dcmmoe(), "raav": Raav()}
"""Systems that read the embeddings of modalities' models, by name."""

KINDS = cast(Mapping[str, Kind], ChainMap(cast(dict[str, Kind], {"description": Description()}), MODALITIES))
"""Everything that is extracted, by name, modalities first."""

SYSTEMS = cast(Mapping[str, System], ChainMap(FUSIONS, MODALITIES))
"""Everything that predicts, by name, modalities first."""


def recipes() -> dict[str, Recipe]:
    """Every recipe by name, those that come with a modality last."""
    return RECIPES | {name: recipe for modality in MODALITIES.values() for name, recipe in modality.recipes.items()}
