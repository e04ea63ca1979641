"""The starter's detector: landmarks, pose of the head and foreground mask of a photo."""
