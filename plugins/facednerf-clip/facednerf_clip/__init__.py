"""Guidance by a CLIP, read from an open_clip folder, for facednerf."""

__version__ = "0.1.0"
