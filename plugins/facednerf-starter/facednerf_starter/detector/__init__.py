"""Finds faces in photos: scikit-image's face cascade for the box, the starter's face reader for everything else."""
