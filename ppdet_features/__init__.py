"""Region features: the detector of bottom-up attention, its training, and extraction from images."""
