"""A backbone of coloured blobs, as an example of a plugin."""

__version__ = "0.1.0"
