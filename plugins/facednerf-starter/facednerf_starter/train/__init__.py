"""The recipes by which the starter weights were made."""
