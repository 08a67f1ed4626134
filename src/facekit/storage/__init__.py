"""What lies on disk and stays whole: files, images, folders, cards."""
