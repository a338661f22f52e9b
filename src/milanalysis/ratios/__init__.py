"""Likelihood ratios of bags, log-ratio terms of events, exact ratios; used by learning and statistics."""
