"""Exit codes of jobs."""

EXIT_OK, EXIT_NOTHING, EXIT_PARTIAL = 0, 1, 3
"""All fine; nothing usable, or an error; finished, but some videos or clips failed."""
