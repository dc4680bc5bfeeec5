"""Behaviour: a vision-language model's states of the full picture, and the temporal model."""
