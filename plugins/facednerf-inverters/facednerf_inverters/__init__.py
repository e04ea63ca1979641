"""Inverters for facednerf: search in W and W+, and pivotal tuning."""

__version__ = "0.1.0"
