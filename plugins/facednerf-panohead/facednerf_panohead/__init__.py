"""PanoHead tri-grid generators of whole heads, written from the paper and from facts, equal to the originals."""

__version__ = "0.1.0"
