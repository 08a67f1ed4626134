"""Reading and writing files, images, folders and cards; every write is atomic."""
