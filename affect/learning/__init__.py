"""Training: batches, the fit loop, checkpoints, several processes."""
