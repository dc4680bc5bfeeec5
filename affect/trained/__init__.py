"""Trained models on disk, their embeddings and their predictions."""
