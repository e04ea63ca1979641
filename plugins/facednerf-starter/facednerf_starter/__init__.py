"""Starter weights for facednerf, the synthetic world they were trained on, and the recipes that trained them."""

__version__ = "0.1.0"
