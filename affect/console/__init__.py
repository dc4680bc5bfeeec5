"""Command-line parts shared by jobs: arguments, exit codes, estimates, status, verification, tiny checkpoints."""
