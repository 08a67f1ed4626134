"""What a recipe is written in, and how one is found, saved and loaded."""
