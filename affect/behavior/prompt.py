"""Prompts of the vision-language model: one paragraph, and a line that names the person if a video shows two.

Source: paper (arXiv 2603.13056), section 3.3; spec section 4.2. The wording is our own; its text is part of the feature
address.
"""

from typing import Literal

Prompt = Literal["neutral", "left", "right"]

VERSION = 2
"""Version of the wording."""

_PARAGRAPH = (
    "You are an expert in multimodal affect analysis. Look at the person in this video: face, head movement, gestures, "
    "posture, and the scene around. Describe the person's affect along two axes, from unpleasant to pleasant and from "
    "calm to excited. Say which visible cues support your judgement and how they change over time. You may be "
    "uncertain, and say so. Do not mention anything that cannot be seen."
)
_WHO = "\nMore than one person is in view: answer for the person on the {side} alone."

PROMPTS: dict[Prompt, str] = {
    "neutral": _PARAGRAPH,
    "left": _PARAGRAPH + _WHO.format(side="left"),
    "right": _PARAGRAPH + _WHO.format(side="right"),
}
"""Text of each prompt."""
