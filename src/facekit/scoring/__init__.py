"""Numbers about image sets: FID, KID, coverage, and what a translation preserves of its source."""
