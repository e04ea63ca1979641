"""EVA3D generators of clothed, posable human bodies for facednerf, written from the paper and from facts."""

__version__ = "0.1.0"
