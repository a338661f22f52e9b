"""The traditional analysis: binned templates, fitted with pyhf."""
