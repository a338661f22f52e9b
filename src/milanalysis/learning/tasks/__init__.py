"""Tasks: what a network is trained to tell apart, its loss, and how its outputs become log ratios."""
