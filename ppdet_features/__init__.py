"""Region features: the detector of bottom-up attention, its training, and the extraction from pictures."""
