"""The corpus: videos, sound, labels, hints, labelled pictures, and a generated corpus with known labels."""
