"""The judges: networks that measure what was made, and that no loss ever uses."""
