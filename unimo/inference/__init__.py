"""Trained models in use: loading them, asking them, scoring them."""
