"""The distributed pipeline: the only rooms that import ray."""
