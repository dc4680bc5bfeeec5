"""What the vision-language model is asked: one paragraph, and a line that names the person where a video has two.

Source: paper, section 3.3; the wording is this project's own and its text is part of the feature address.
"""

from typing import Literal

Prompt = Literal["neutral", "left", "right"]

_TEXT = (
    "You are an expert in multimodal affect analysis. Look at {person} in this video: face, head movement, gestures, "
    "posture, and the scene around. Describe the person's affect along two axes, from unpleasant to pleasant and from "
    "calm to excited. Say which visible cues support your judgement and how they change over time. You may be "
    "uncertain, and say so. Do not mention anything that cannot be seen."
)

PROMPTS: dict[Prompt, str] = {
    "neutral": _TEXT.format(person="the person"),
    "left": _TEXT.format(person="the person on the left"),
    "right": _TEXT.format(person="the person on the right"),
}
"""The text by the person it asks about."""
