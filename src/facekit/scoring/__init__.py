"""Numbers about image sets."""
