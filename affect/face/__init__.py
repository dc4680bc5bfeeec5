"""Face: detection, embedding, mouth, who is who, and the temporal model."""
