"""What is known exactly about the built-in signal: the visible likelihood ratio and the Fisher information."""
