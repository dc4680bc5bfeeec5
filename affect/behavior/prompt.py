"""What the vision-language model is asked: one paragraph, and a line that names the person where a video has two.

Source: paper, section 3.3; the wording is this project's own and its text is part of the feature address.
"""

from typing import Literal

Prompt = Literal["neutral", "left", "right"]

VERSION = 2
"""Of the wording."""

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
"""The text by the person it asks about."""
