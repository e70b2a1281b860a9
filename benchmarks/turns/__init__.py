"""How many turns a second each store saves with many callers at once: `python -m benchmarks.turns`."""
