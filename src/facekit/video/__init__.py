"""Moving pictures: films, animations and folders of frames, read and written frame by frame."""
