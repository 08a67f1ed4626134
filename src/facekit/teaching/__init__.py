"""Pairs of a face and what a teacher draws of it, for students to learn from."""
