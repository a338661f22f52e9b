"""The measurement repeated on pseudo-experiments, and intervals constructed from them."""
