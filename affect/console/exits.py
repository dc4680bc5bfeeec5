"""Exit codes of jobs."""

EXIT_OK, EXIT_NOTHING, EXIT_PARTIAL = 0, 1, 3
"""Success; error or nothing usable; finished, but some videos or clips failed."""
