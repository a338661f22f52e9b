"""Training: the loop, its input tables, parallel trainings, and the search of settings."""
