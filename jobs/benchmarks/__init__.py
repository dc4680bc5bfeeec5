"""Benchmarks that jobs/benchmark.py runs by name."""
