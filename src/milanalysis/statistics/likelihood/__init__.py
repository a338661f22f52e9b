"""Likelihoods: shape, rate, nuisance parameters and constraints, and their sums."""
