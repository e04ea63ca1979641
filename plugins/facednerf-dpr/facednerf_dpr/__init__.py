"""The light of portraits, estimated and changed by DPR's hourglass network."""

__version__ = "0.1.0"
