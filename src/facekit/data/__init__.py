"""Training data: from image folders to batches."""
