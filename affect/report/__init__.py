"""Pages to look at: of predicted videos and of trainings. Each is one file that needs no network."""
