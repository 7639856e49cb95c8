"""Metrics: figures of merit from predictions, in plain Python and NumPy."""
