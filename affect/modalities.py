"""List of all modalities and fusions; code that handles every modality iterates over it.

To add a modality, create a folder like ``affect/face`` and add a line here: "Add a modality" in affect/README.md.
"""

from collections import ChainMap
from collections.abc import Iterable, Mapping
from typing import cast

from affect.audio.modality import Audio
from affect.behavior.modality import Behavior, Description
from affect.face.modality import Face
from affect.fusion.systems import Dcmmoe, Linear, Raav
from affect.modality import Kind, Modality, System
from affect.settings.extraction import Stage
from affect.settings.recipes import RECIPES, Recipe
from affect.settings.run import Run

MODALITIES: dict[str, Modality] = {
    "face": Face(),
    "behavior": Behavior(),
    "audio": Audio(),
}
"""Modalities by name, in order of assembly, training and display; one that another needs precedes it."""

FUSIONS: dict[str, System] = {"dcmmoe": Dcmmoe(), "raav": Raav(), "linear": Linear()}
"""Systems that read several modalities: embeddings of unimodal models, or ratings of encoders; by name."""

KINDS = cast(Mapping[str, Kind], ChainMap(cast(dict[str, Kind], {"description": Description()}), MODALITIES))
"""All kinds of features, by name, modalities first."""

SYSTEMS = cast(Mapping[str, System], ChainMap(FUSIONS, MODALITIES))
"""All systems, by name, modalities first."""


def stages_of(run: Run, kinds: Iterable[str]) -> dict[str, Stage]:
    """A run's extraction stages of kinds of features, by kind."""
    return {kind: KINDS[kind].stage(run) for kind in kinds}


def recipes() -> dict[str, Recipe]:
    """All recipes by name, those of modalities last."""
    return RECIPES | {name: recipe for modality in MODALITIES.values() for name, recipe in modality.recipes.items()}
