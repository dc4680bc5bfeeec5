"""Audio: which segments are heard, augmentation, and the model."""
