"""Readers: one class for each file format, giving records by index. `open.py` picks among them."""
