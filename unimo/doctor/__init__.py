"""Examination of a machine before a long run: what is installed, how fast it is, is training right there.

`examine.py` runs the checks, each of the other modules is one of them, `report.py` writes the table.
"""
