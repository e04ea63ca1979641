"""Identity by ArcFace-style recognition networks."""

__version__ = "0.1.0"
