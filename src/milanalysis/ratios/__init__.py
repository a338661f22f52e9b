"""Likelihood ratios: bags of events, log-ratio terms of events, and exact ratios.

Shared by learning and statistics.
"""
