"""Face: detection, crops, mesh, frame encoder, person tracking, and the temporal model."""
