"""HTML pages and films of predicted videos, trainings and searches."""
