"""Exact results for the built-in signal: the visible likelihood ratio and the Fisher information."""
