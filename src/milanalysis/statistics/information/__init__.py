"""Fisher information and figures of merit of the methods."""
