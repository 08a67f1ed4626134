"""Trained nets at work: translating and exporting."""
