"""Prompts of the vision-language model: one paragraph, and a line that names the person if a video shows two.

The two questions of the experimental rating name the person in the same way.

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

RATING_VERSION = 1
"""Version of the questions and of the rating that is computed from their answers."""

_SCALE = "On a scale from 1 ({lowest}) to 9 ({highest}), {question} Answer with one digit."
_VALENCE = _SCALE.format(
    lowest="very unpleasant",
    highest="very pleasant",
    question="how pleasant is what the person in this video feels?",
)
_AROUSAL = _SCALE.format(
    lowest="very calm", highest="very excited", question="how activated is the person in this video?"
)

QUESTIONS: dict[Prompt, tuple[str, str]] = {
    "neutral": (_VALENCE, _AROUSAL),
    "left": (_VALENCE + _WHO.format(side="left"), _AROUSAL + _WHO.format(side="left")),
    "right": (_VALENCE + _WHO.format(side="right"), _AROUSAL + _WHO.format(side="right")),
}
"""Questions for valence and arousal that go with each prompt."""


def questions_of_prompts() -> dict[str, tuple[str, str]]:
    """Questions for valence and arousal by the text of the prompt that they go with."""
    return {PROMPTS[prompt]: pair for prompt, pair in QUESTIONS.items()}
