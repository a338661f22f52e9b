"""Trained models: how they are stored, loaded, and averaged."""
