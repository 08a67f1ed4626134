"""From image folders to training batches."""
