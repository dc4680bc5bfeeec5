"""Scores with intervals, late fusion, and predictions of models on labelled tracks."""
