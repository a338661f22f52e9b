"""Tables of features -> likelihood ratios."""
