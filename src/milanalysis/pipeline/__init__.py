"""The stages of an analysis, and what each of them does."""
