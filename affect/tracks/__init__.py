"""Features of a person over time: from clips to one track per person, as tables."""
