"""Ablations: training and scoring variants of a card, and comparing them in a report."""
