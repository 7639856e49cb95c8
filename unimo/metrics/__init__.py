"""Metrics: scores of predictions, in plain Python and NumPy."""
