"""Files of a run: paths as users write them, digests, provenance, and the layout of a run directory."""
