"""Fusion of the modalities' embeddings and predictions; it reads their tables, never their code."""
