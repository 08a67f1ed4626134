"""Scores of a run while it trains: its best weights are kept, and it may end early."""
