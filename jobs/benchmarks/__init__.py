"""The parts of jobs/benchmark.py."""
