"""Names shared by settings and tables."""

from typing import Literal

People = Literal["all", "main", "left", "right"]
"""People to predict."""
EXPRESSIONS = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise", "other")
"""Classes of the frame encoder's expression head, in the order of its logits."""
