"""How each model is fed, and how its outputs become frames: one file a modality, one for the fusions.

The models are in their modality's room, the arithmetic of windows in :mod:`affect.timeline`.
"""
