"""Audio: the mouth filter that selects segments, waveform augmentation, and the model."""
