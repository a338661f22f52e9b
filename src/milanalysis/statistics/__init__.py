"""Likelihood ratios -> intervals."""
