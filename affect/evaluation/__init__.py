"""Scores with intervals, late fusion, and what models answer on labelled tracks."""
