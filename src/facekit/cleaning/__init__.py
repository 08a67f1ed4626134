"""Which images of a folder are worth keeping."""
