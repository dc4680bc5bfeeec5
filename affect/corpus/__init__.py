"""The corpus: videos, sound, labels, and a generated one with known answers."""
