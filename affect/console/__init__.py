"""What jobs share at the command line: arguments, exit codes, estimates, status, tiny checkpoints."""
