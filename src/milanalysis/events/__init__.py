"""ROOT and LHE files -> tables of features."""
