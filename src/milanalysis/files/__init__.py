"""Files of a run: paths as people write them, digests and provenance, where everything is in a run directory."""
