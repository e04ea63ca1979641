"""A synthetic world of heads: every attribute, light and camera is known."""
