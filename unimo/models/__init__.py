"""One package for each paper, written against the protocol in `base.py`."""
