"""Names of modalities, systems, people and expressions."""

from typing import Literal

Modality = Literal["face", "behavior", "audio"]


MODALITIES: tuple[Modality, ...] = ("face", "behavior", "audio")


Kind = Literal["face", "behavior", "audio", "description"]
"""What is extracted: a modality's features, or what is seen in words, which no model reads."""


System = Literal["face", "behavior", "audio", "dcmmoe", "raav"]


SYSTEMS: tuple[System, ...] = ("face", "behavior", "audio", "dcmmoe", "raav")
"""The systems that predict, modalities first: a fusion reads what the modalities' models say."""


FIELDS: dict[System, str] = {
    "face": "face_transformer",
    "behavior": "mamba",
    "audio": "wavlm",
    "dcmmoe": "dcmmoe",
    "raav": "raav",
}
"""Where a system's settings are in a run."""


People = Literal["all", "main", "left", "right"]
"""Whom to predict."""


EXPRESSIONS = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise", "other")
"""Classes of the frame encoder's expression head, in the order of its logits."""
