"""Identity by ArcFace-style recognition networks."""
