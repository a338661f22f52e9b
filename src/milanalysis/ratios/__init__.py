"""Likelihood ratios: bags of events, log-ratio terms of events, and exact ratios; shared by learning and statistics."""
