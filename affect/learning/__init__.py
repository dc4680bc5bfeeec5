"""Training: batches, the fit loop, checkpoints, distribution over processes."""
