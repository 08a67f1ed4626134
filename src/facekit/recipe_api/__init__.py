"""The interface that recipes are written against, and how recipes and their weights are found, saved and loaded."""
