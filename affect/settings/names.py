"""Names shared by settings and tables."""

from typing import Literal

People = Literal["all", "main", "left", "right"]
"""People to predict."""
SPEECH_EMOTION = "3loi/SER-Odyssey-Baseline-WavLM-Multi-Attributes"
"""Hugging Face id of a WavLM-Large trained on MSP-Podcast, with a head for arousal, dominance and valence; MIT."""
SPEECH_EMOTION_REVISION = "00d0e12ba9bf957f5aeea36e8663c8c61cb50ac9"
"""Commit of :data:`SPEECH_EMOTION`."""
EXPRESSIONS = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise", "other")
"""Classes of the frame encoder's expression head, in the order of its logits."""
Centering = Literal["none", "median", "both"]
"""Inputs as they are, minus the median of their track, which is the person's, or both side by side."""
