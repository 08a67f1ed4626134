"""Finding images of poor quality and duplicates in a folder, and sorting them out."""
