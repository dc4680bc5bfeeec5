"""Behaviour: a vision-language model's hidden states of the full picture, and the temporal model."""
