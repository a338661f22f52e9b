"""Fits, intervals and profiles with iminuit."""
