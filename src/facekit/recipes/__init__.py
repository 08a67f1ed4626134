"""One file per family of methods."""
