"""What the starter is measured by: a section for each of its parts, with goals. `benchmarks/starter.py` is the command."""
